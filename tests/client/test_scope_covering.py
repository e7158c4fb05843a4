"""What a held scope covers, as laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchword.scope import SCOPE_LENGTH_MAX, covers, is_scope, is_scope_pattern, missing_scopes

segments = st.text("abz09_-", min_size=1, max_size=3) | st.just("watchword")
scopes = st.lists(segments, min_size=1, max_size=4).map(".".join)
patterns = scopes | scopes.map(lambda scope: scope + ".*") | st.just("*")


@given(scopes)
def test_scopes_and_patterns_are_told_apart(scope: str) -> None:
    assert is_scope(scope)
    assert is_scope_pattern(scope)
    assert is_scope_pattern(scope + ".*")
    assert not is_scope(scope + ".*")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "A",
        "a b",
        "a\n",
        "\u0430.read",
        "a.*.b",
        "a*",
        "**",
        "*.a",
        "a.**",
        "\uff41",
        "a\0",
        "é",
    ],
)
def test_what_is_neither(text: str) -> None:
    assert not is_scope(text)
    assert not is_scope_pattern(text)


def test_length_is_bounded() -> None:
    longest = "a" * SCOPE_LENGTH_MAX
    assert is_scope(longest)
    assert is_scope_pattern(longest)
    assert not is_scope(longest + "a")
    assert not is_scope_pattern(longest + "a")
    assert not is_scope_pattern(longest[:-1] + ".*")


@given(patterns)
def test_everything_covers_itself(pattern: str) -> None:
    assert covers(pattern, pattern)


@given(patterns, patterns, patterns)
def test_covering_is_transitive_so_that_no_chain_of_grants_widens(one: str, two: str, three: str) -> None:
    if covers(one, two) and covers(two, three):
        assert covers(one, three)


@given(patterns, patterns)
def test_two_that_cover_each_other_are_one(one: str, two: str) -> None:
    if covers(one, two) and covers(two, one):
        assert one == two


@given(patterns, patterns, scopes)
def test_who_covers_a_pattern_covers_what_it_covers(one: str, two: str, scope: str) -> None:
    if covers(one, two) and covers(two, scope):
        assert covers(one, scope)


@given(scopes, scopes)
def test_a_scope_without_a_wildcard_covers_itself_alone(one: str, two: str) -> None:
    assert covers(one, two) == (one == two)


@given(scopes, scopes)
def test_a_prefix_covers_whole_segments_below_it_and_not_itself(head: str, tail: str) -> None:
    assert covers(head + ".*", head + "." + tail)
    assert covers(head + ".*", head + "." + tail + ".*")
    assert not covers(head + ".*", head)
    assert not covers(head + ".*", head + "x." + tail)
    assert not covers(head + ".*", "*")


@given(scopes)
def test_the_star_reaches_everything_but_watchword(scope: str) -> None:
    assert covers("*", scope) == (scope.split(".")[0] != "watchword")
    assert covers("*", scope + ".*") == (scope.split(".")[0] != "watchword")


@given(patterns, scopes)
def test_watchword_is_reached_only_when_written_out(held: str, tail: str) -> None:
    if covers(held, "watchword." + tail):
        assert held.split(".")[0] == "watchword"


@given(st.lists(patterns, max_size=4), st.lists(scopes, max_size=4))
def test_missing_are_those_that_nothing_covers_in_the_order_asked(held: list[str], required: list[str]) -> None:
    missing = missing_scopes(iter(held), iter(required))
    assert missing == [scope for scope in required if not any(covers(one, scope) for one in held)]
