"""Scopes, names and grants: what covers what, and that no sequence of Issues gives anybody more."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from watchword.scope import covers, is_scope, is_scope_pattern, missing_scopes
from watchword_server.rules.grants import (
    covering_grant,
    covers_scope_name,
    covers_subject,
    covers_token,
    grant_within,
    name_covers,
)
from watchword_server.rules.tokens import Grant, TokenRecord
from watchword_server.rules.verdicts import serves_audience

# A small world, so that random choices meet: every concrete scope and name, and every pattern over them.
SCOPES = ("a", "a.b", "a.b.c", "a.bc", "ab", "b.c", "watchword", "watchword.issue", "watchwords.x")
SCOPE_PATTERNS = (*SCOPES, "*", "a.*", "a.b.*", "b.*", "watchword.*", "watchwords.*")
NAMES = ("orders", "team", "team/a", "team/a/b", "teams/a", "team.x", "team:y", "watchword", "watchword/x")
NAME_PATTERNS = (*NAMES, "*", "team/*", "team/a/*", "team.*", "team:*", "watchword/*")


def scope_reach(patterns: tuple[str, ...]) -> frozenset[str]:
    """The concrete scopes that patterns stand for, by the definition in words and not by the code under test."""
    return frozenset(
        scope
        for scope in SCOPES
        for pattern in patterns
        if scope == pattern
        or (pattern == "*" and scope.split(".")[0] != "watchword")
        or (
            pattern.endswith(".*")
            and scope.split(".")[: pattern.count(".")] == pattern.split(".")[:-1]
            and scope.count(".") >= pattern.count(".")
        )
    )


def name_reach(patterns: tuple[str, ...]) -> frozenset[str]:
    """The concrete names that patterns stand for."""
    return frozenset(
        name
        for name in NAMES
        for pattern in patterns
        if name == pattern
        or (pattern == "*" and name != "watchword")
        or (len(pattern) > 1 and pattern.endswith("*") and name.startswith(pattern[:-1]))
    )


def reach(grant: Grant) -> frozenset[tuple[str, str, str]]:
    """Every concrete (scope, subject, audience) that a grant lets its holder put into a token."""
    return frozenset(product(scope_reach(grant.scopes), name_reach(grant.subjects), name_reach(grant.audiences)))


@pytest.mark.parametrize(
    ("held", "wanted", "covered"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", True),
        ("a.*", "a.b.*", True),
        ("a.*", "a", False),
        ("a.*", "ab", False),
        ("a.*", "*", False),
        ("a.b.*", "a.*", False),
        ("*", "a", True),
        ("*", "a.*", True),
        ("*", "*", True),
        ("*", "watchword", False),
        ("*", "watchword.issue", False),
        ("*", "watchword.*", False),
        ("*", "watchwords.x", True),
        ("watchword.*", "watchword.issue", True),
        ("watchword.*", "watchword.*", True),
        ("watchword.*", "*", False),
        ("watchword.*", "a", False),
    ],
)
def test_scope_covers(held: str, wanted: str, covered: bool) -> None:
    assert covers(held, wanted) is covered


@pytest.mark.parametrize(
    ("held", "wanted", "covered"),
    [
        ("orders", "orders", True),
        ("orders", "Orders", False),
        ("team/*", "team/a", True),
        ("team/*", "team/a/b", True),
        ("team/*", "team/a/*", True),
        ("team/*", "team/*", True),
        ("team/*", "team/", False),
        ("team/*", "team", False),
        ("team/*", "teams/a", False),
        ("team/*", "team.a", False),
        ("team.*", "team.a", True),
        ("team:*", "team:a", True),
        ("team/a/*", "team/*", False),
        ("team/*", "*", False),
        ("*", "anyone", True),
        ("*", "team/*", True),
        ("*", "*", True),
        ("*", "watchword", False),
        ("*", "watchword/x", True),
        ("watchword", "watchword", True),
        ("watchword", "*", False),
    ],
)
def test_name_covers(held: str, wanted: str, covered: bool) -> None:
    assert name_covers(held, wanted) is covered


@pytest.mark.parametrize("held", SCOPE_PATTERNS)
@pytest.mark.parametrize("wanted", SCOPE_PATTERNS)
def test_scope_covering_is_containment_of_what_patterns_stand_for(held: str, wanted: str) -> None:
    if covers(held, wanted):
        assert scope_reach((wanted,)) <= scope_reach((held,))
    if is_scope(wanted):
        assert covers(held, wanted) == (wanted in scope_reach((held,)))


@pytest.mark.parametrize("held", NAME_PATTERNS)
@pytest.mark.parametrize("wanted", NAME_PATTERNS)
def test_name_covering_is_containment_of_what_patterns_stand_for(held: str, wanted: str) -> None:
    if name_covers(held, wanted):
        assert name_reach((wanted,)) <= name_reach((held,))
    if wanted in NAMES:
        assert name_covers(held, wanted) == (wanted in name_reach((held,)))


_segments = st.text("abz019_-", min_size=1, max_size=4)
_scopes = st.lists(_segments, min_size=1, max_size=5).map(".".join)
_scope_patterns = st.one_of(_scopes, _scopes.map(lambda scope: scope + ".*"), st.just("*"), st.just("watchword.*"))


@given(_scope_patterns, _scope_patterns, _scope_patterns)
def test_covering_is_transitive_and_reflexive(wide: str, middle: str, narrow: str) -> None:
    assert covers(wide, wide)
    if covers(wide, middle) and covers(middle, narrow):
        assert covers(wide, narrow)


@given(st.one_of(_scope_patterns, st.text(max_size=12)))
def test_every_scope_is_a_pattern_and_wildcards_are_no_scopes(text: str) -> None:
    if is_scope(text):
        assert is_scope_pattern(text)
        assert "*" not in text
    if is_scope_pattern(text):
        assert text.isascii()
        assert text == text.lower()


@given(st.lists(_scope_patterns, max_size=4), st.lists(_scopes, max_size=4))
def test_missing_scopes_are_those_that_nothing_covers_in_the_order_asked(held: list[str], required: list[str]) -> None:
    assert missing_scopes(held, required) == [
        scope for scope in required if not any(covers(one, scope) for one in held)
    ]


def test_two_grants_that_each_cover_a_half_cover_nothing() -> None:
    held = [Grant(("a",), ("orders",), ("orders",)), Grant(("b",), ("team",), ("orders",))]
    assert covering_grant(held, subject="orders", scopes=["a"], audiences=["orders"]) is held[0]
    assert covering_grant(held, subject="team", scopes=["a"], audiences=["orders"]) is None
    assert covering_grant(held, subject="team", scopes=["a", "b"], audiences=["orders"]) is None


def test_grants_passed_on_lie_within_the_same_grant_as_the_rest() -> None:
    held = [Grant(("a",), ("orders",), ("orders",)), Grant(("b",), ("*",), ("*",))]
    passed_on = [Grant(("b",), ("team",), ("orders",))]
    assert covering_grant(held, subject="orders", scopes=["a"], audiences=["orders"], grants=passed_on) is None
    assert covering_grant(held, subject="team", scopes=["b"], audiences=["orders"], grants=passed_on) is held[1]


@pytest.mark.parametrize(
    "wanted",
    [
        Grant(("a.b", "c"), ("orders",), ("orders",)),
        Grant(("a.b",), ("orders", "*"), ("orders",)),
        Grant(("a.b",), ("orders",), ("orders", "watchword")),
    ],
)
def test_grant_is_within_only_if_every_part_of_it_is(wanted: Grant) -> None:
    held = Grant(("a.*",), ("orders", "team/*"), ("*",))
    assert grant_within(Grant(("a.b",), ("orders",), ("orders",)), held)
    assert not grant_within(wanted, held)


def test_an_owner_lies_within_the_same_grant_as_the_subject() -> None:
    held = [Grant((), ("team/*",), ("*",)), Grant((), ("ann",), ("*",))]
    both = Grant((), ("team/*", "ann"), ("*",))
    assert covering_grant(held, subject="team/a", scopes=[], audiences=["orders"], owner="ann") is None
    assert covering_grant([*held, both], subject="team/a", scopes=[], audiences=["orders"], owner="ann") is both
    assert covering_grant(held, subject="team/a", scopes=[], audiences=["orders"]) is held[0]


@pytest.mark.parametrize(
    ("beyond", "reached"),
    [
        ({}, True),
        ({"subject": "orders"}, False),
        ({"owner": "bob"}, False),
        ({"scopes": ("a", "b")}, False),
        ({"audiences": ("watchword",)}, False),
        ({"grants": (Grant(("a",), ("*",), ("orders",)),)}, False),
    ],
)
def test_a_token_is_within_reach_only_if_all_of_it_is(beyond: dict[str, Any], reached: bool) -> None:
    record = TokenRecord(
        token_id=UUID(int=1),
        pepper_version=1,
        digest=bytes(32),
        subject="team/a",
        audiences=("orders",),
        scopes=("a",),
        grants=(Grant(("a",), ("team/*",), ("orders",)),),
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
        expires_at=datetime(2031, 1, 1, tzinfo=UTC),
        owner="ann",
    )
    held = [Grant(("a",), ("team/*", "ann"), ("orders",))]
    assert covers_token(held, record._replace(**beyond)) is reached


def test_a_subject_is_covered_by_any_grants_subjects() -> None:
    held = [Grant(("a",), ("team/*",), ()), Grant((), ("ann",), ())]
    assert covers_subject(held, "ann")
    assert covers_subject(held, "team/a")
    assert not covers_subject(held, "bob")
    assert not covers_subject([Grant((), ("*",), ())], "watchword")
    assert not covers_subject([], "ann")


def test_no_grants_cover_nothing() -> None:
    assert covering_grant([], subject="a", scopes=[], audiences=[]) is None
    assert covering_grant([Grant()], subject="a", scopes=[], audiences=["b"]) is None


def test_registering_takes_a_grant_whose_scopes_cover_the_name() -> None:
    held = [Grant(("orders.*",), (), ()), Grant(("billing.read",), (), ())]
    assert covers_scope_name(held, "orders.read")
    assert covers_scope_name(held, "billing.read")
    assert not covers_scope_name(held, "orders")
    assert not covers_scope_name(held, "billing.write")
    assert not covers_scope_name([], "orders.read")


def _patterns(among: tuple[str, ...], *, least: int = 0) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(among), min_size=least, max_size=3, unique=True).map(tuple)


_grants = st.builds(
    Grant, _patterns(SCOPE_PATTERNS, least=1), _patterns(NAME_PATTERNS, least=1), _patterns(NAME_PATTERNS, least=1)
)
_grant_lists = st.lists(_grants, max_size=3).map(tuple)


class Issues(RuleBasedStateMachine):
    """Any holder asks for anything, over and over. What was given is followed up to the root."""

    holders: Bundle[int] = Bundle("holders")

    def __init__(self) -> None:
        super().__init__()
        # For each token: its grants, and the concrete authority that its chain up to the root leaves it.
        self.grants: list[tuple[Grant, ...]] = []
        self.ceilings: list[frozenset[tuple[str, str, str]]] = []
        self.authority: list[frozenset[tuple[str, str, str]]] = []

    def _add(
        self,
        grants: tuple[Grant, ...],
        authority: frozenset[tuple[str, str, str]],
        ceiling: frozenset[tuple[str, str, str]],
    ) -> int:
        self.grants.append(grants)
        self.authority.append(authority)
        self.ceilings.append(ceiling)
        return len(self.grants) - 1

    @initialize(target=holders, grants=_grant_lists)
    def bootstrap(self, grants: tuple[Grant, ...]) -> int:
        closure = frozenset[tuple[str, str, str]]().union(*map(reach, grants))
        return self._add(grants, frozenset(), closure)

    @rule(
        target=holders,
        holder=holders,
        subject=st.sampled_from(NAMES),
        scopes=_patterns(SCOPE_PATTERNS),
        audiences=_patterns((*NAMES, "*"), least=1),
        grants=_grant_lists,
        derived=st.booleans(),
        data=st.data(),
    )
    def issue(
        self,
        holder: int,
        subject: str,
        scopes: tuple[str, ...],
        audiences: tuple[str, ...],
        grants: tuple[Grant, ...],
        derived: bool,
        data: st.DataObject,
    ) -> int | MultipleResults[int]:
        held = self.grants[holder]
        if derived and held:
            # Random wishes are seldom granted: start from what is held, and mostly stay there.
            base = data.draw(st.sampled_from(held))
            scopes = base.scopes
            grants = (base, *grants[:1])
            audiences = tuple(name for name in base.audiences if name in (*NAMES, "*")) or audiences
        if covering_grant(held, subject=subject, scopes=scopes, audiences=audiences, grants=grants) is None:
            return multiple()
        authority = frozenset(
            (scope, subject, audience)
            for scope in scope_reach(scopes)
            for audience in NAMES
            if serves_audience(audiences, audience)
        )
        # The chain: what the holder's one grant lets through, of what its own chain left it.
        ceiling = self.ceilings[holder] & frozenset[tuple[str, str, str]]().union(*map(reach, held))
        return self._add(grants, authority, ceiling)

    @invariant()
    def nobody_holds_more_than_the_chain_above_leaves(self) -> None:
        for grants, authority, ceiling in zip(self.grants, self.authority, self.ceilings, strict=True):
            assert authority <= ceiling
            for grant in grants:
                assert reach(grant) <= ceiling


def test_no_sequence_of_issues_escalates() -> None:
    run_state_machine_as_test(Issues, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))
