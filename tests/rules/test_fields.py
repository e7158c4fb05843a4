"""What a request may contain: each limit at it and over it, and nothing that people cannot see."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchword.scope import is_scope, is_scope_pattern
from watchword_server.rules.fields import Faults, unknown_scopes
from watchword_server.rules.tokens import Grant

CANARY = "ww_canary"
GRANT = Grant(("a",), ("b",), ("c",))


def faults(check: Callable[[Faults], object]) -> list[str]:
    """The paths that a check finds fault with."""
    found = Faults()
    check(found)
    return [path for path, _ in found.found]


@pytest.mark.parametrize(
    ("at_limit", "over"),
    [
        (lambda f: f.text("t", "x" * 255), lambda f: f.text("t", "x" * 256)),
        (lambda f: f.name("t", "x" * 255), lambda f: f.name("t", "x" * 256)),
        (lambda f: f.pattern("t", "x" * 253 + ".*"), lambda f: f.pattern("t", "x" * 254 + ".*")),
        (lambda f: f.scope_patterns("t", ["a"] * 64), lambda f: f.scope_patterns("t", ["a"] * 65)),
        (lambda f: f.required_scopes("t", ["a"] * 64), lambda f: f.required_scopes("t", ["a"] * 65)),
        (lambda f: f.audiences("t", ["a"] * 64), lambda f: f.audiences("t", ["a"] * 65)),
        (lambda f: f.audiences("t", ["a"]), lambda f: f.audiences("t", [])),
        (lambda f: f.grants("t", [GRANT] * 16), lambda f: f.grants("t", [GRANT] * 17)),
        (
            lambda f: f.metadata("t", {f"k{n}": "" for n in range(32)}),
            lambda f: f.metadata("t", {f"k{n}": "" for n in range(33)}),
        ),
        (lambda f: f.metadata("t", {"k" * 64: "v"}), lambda f: f.metadata("t", {"k" * 65: "v"})),
        (lambda f: f.request_id("t", "x" * 128), lambda f: f.request_id("t", "x" * 129)),
    ],
)
def test_limit_is_allowed_and_one_more_is_not(
    at_limit: Callable[[Faults], object], over: Callable[[Faults], object]
) -> None:
    assert faults(at_limit) == []
    assert faults(over) == ["t"]


def test_what_each_answer_carries_has_at_most_12_kib_together() -> None:
    names, pairs = ["x" * 128] * 16, {f"{n:04}": "ü" * 508 for n in range(8)}
    for check, blamed in (
        (lambda f, extra: f.carried(names, names, {**pairs, "more": extra}), "metadata"),
        (lambda f, extra: f.carried([*names, *names, *names, extra], names, {"k" * 64: "x" * 4028}), "scopes"),
    ):
        assert faults(lambda f, check=check: check(f, "")) == []  # type: ignore[misc]
        assert faults(lambda f, check=check: check(f, "x" * 128)) == [blamed]  # type: ignore[misc]


def test_grants_have_at_most_12_kib_together() -> None:
    wide = Grant(("x" * 128,) * 16, ("y" * 128,) * 16, ("z" * 128,) * 16)
    assert faults(lambda f: f.grants_together("g", [wide, wide])) == []
    assert faults(lambda f: f.grants_together("g", [wide, wide, GRANT])) == ["g"]


def test_metadata_value_has_at_most_1024_characters() -> None:
    assert faults(lambda f: f.metadata("m", {"k": "x" * 1024})) == []
    assert faults(lambda f: f.metadata("m", {"k": "x" * 1025})) == ["m[k]"]


def test_scope_has_at_most_128_characters() -> None:
    assert faults(lambda f: f.scope_patterns("s", ["x" * 128])) == []
    assert faults(lambda f: f.scope_patterns("s", ["a", "x" * 129])) == ["s[1]"]


@pytest.mark.parametrize(
    "unseen",
    [
        *["\x00", "\n", "\t", "\x1b", "\x7f", "\x85", "\u200b", "\u202e", "\u2066", "\u200f", "\ufeff", "\u00ad"],
        *["\u2028", "\u2029", "\ud800", "\ue000", "\uffff", "\U000e0041"],
    ],
)
def test_text_holds_nothing_that_people_cannot_see(unseen: str) -> None:
    assert faults(lambda f: f.text("t", f"a{unseen}b")) == ["t"]
    assert faults(lambda f: f.metadata("t", {"k": unseen})) == ["t[k]"]
    for check in (Faults.name, Faults.pattern, Faults.request_id):
        assert faults(lambda f, check=check: check(f, "t", f"a{unseen}b")) == ["t"]  # type: ignore[misc]
    assert faults(lambda f: f.scope_patterns("t", [f"a{unseen}b"])) == ["t[0]"]


@pytest.mark.parametrize("text", ["", "plain", "Zürich, 東京 & Καλημέρα", "naïve café 🔑", "a b"])
def test_text_for_people_is_in_any_language(text: str) -> None:
    assert faults(lambda f: f.text("t", text)) == []


@pytest.mark.parametrize("name", ["a", "9", "Orders", "team/a", "svc@cluster.local", "spiffe://prod/orders", "a.b-c_d"])
def test_name_is_accepted(name: str) -> None:
    assert faults(lambda f: f.name("n", name)) == []
    assert faults(lambda f: f.pattern("n", name)) == []


@pytest.mark.parametrize("name", ["", "*", "a*", "team/*", ".a", "/a", "-a", "a b", "оrders", "ａ", "a\n", "a,b", "a%"])
def test_name_is_refused(name: str) -> None:
    assert faults(lambda f: f.name("n", name)) == ["n"]


@pytest.mark.parametrize("pattern", ["*", "team/*", "team.*", "team:*", "team/a/*", "plain"])
def test_pattern_is_accepted(pattern: str) -> None:
    assert faults(lambda f: f.pattern("p", pattern)) == []


@pytest.mark.parametrize("pattern", ["", "**", "team*", "*/a", "te*am", "team/*/x", "/*", ".*", "team-*", "*\n"])
def test_pattern_is_refused(pattern: str) -> None:
    assert faults(lambda f: f.pattern("p", pattern)) == ["p"]


@pytest.mark.parametrize("scope", ["A", "a..b", ".a", "a.", "a.*.b", "*.a", "a*", "", " a", "a\n", "оrders", "a/b"])
def test_scope_is_refused(scope: str) -> None:
    assert faults(lambda f: f.scope_patterns("s", ["ok", scope])) == ["s[1]"]
    assert faults(lambda f: f.required_scopes("s", ["ok", scope])) == ["s[1]"]


@pytest.mark.parametrize("scope", ["*", "a.*"])
def test_required_scope_has_no_wildcard(scope: str) -> None:
    assert faults(lambda f: f.scope_patterns("s", [scope])) == []
    assert faults(lambda f: f.required_scopes("s", [scope])) == ["s[0]"]


def test_any_audience_is_written_out() -> None:
    assert faults(lambda f: f.audiences("a", ["*"])) == []
    assert faults(lambda f: f.audiences("a", ["*", "team/*"])) == ["a[1]"]


def test_every_part_of_a_grant_is_looked_at() -> None:
    bad = Grant(("A",), ("b", "c*"), ())
    assert faults(lambda f: f.grants("g", [GRANT, bad])) == ["g[1].scopes[0]", "g[1].subjects[1]", "g[1].audiences"]


@pytest.mark.parametrize("key", ["", "A", "a b", "ä", "a/b", "\x00"])
def test_metadata_key_is_refused(key: str) -> None:
    assert faults(lambda f: f.metadata("m", {key: "v"})) == ["m"]


@pytest.mark.parametrize("request_id", ["a b", " ", "a\n", "é", "\x7f"])
def test_request_id_is_printable_ascii(request_id: str) -> None:
    assert faults(lambda f: f.request_id("r", request_id)) == ["r"]


def test_absent_request_id_is_none() -> None:
    assert faults(lambda f: f.request_id("r", "")) == []


@pytest.mark.parametrize("name", ["watchword", "watchword.x", "watchword.issue"])
def test_reserved_names_cannot_be_registered(name: str) -> None:
    assert faults(lambda f: f.registration("s", name, "")) == ["s.name"]
    assert faults(lambda f: f.registration("s", "watchwords.x", "")) == []


def test_registration_has_no_wildcard_and_a_short_description() -> None:
    assert faults(lambda f: f.registration("s", "a.*", "")) == ["s.name"]
    assert faults(lambda f: f.registration("s", "a", "x" * 256)) == ["s.description"]


def test_every_fault_is_found_at_once() -> None:
    def check(f: Faults) -> None:
        f.name("subject", "")
        f.audiences("audiences", ["", "ok", " "])
        f.request_id("request_id", " ")

    assert faults(check) == ["subject", "audiences[0]", "audiences[2]", "request_id"]


@given(st.text(max_size=300))
def test_descriptions_never_repeat_what_was_sent(text: str) -> None:
    """It may be a secret that somebody pasted into the wrong field."""
    sent = CANARY + text
    found = Faults()
    found.text("t", sent + "\x00")
    found.name("t", sent + " ")
    found.pattern("t", sent + " ")
    found.scope_patterns("t", [sent + " "])
    found.audiences("t", [sent + " "])
    found.request_id("t", sent + " ")
    found.metadata("t", {sent + " ": ""})
    found.registration("t", sent + " ", sent + "\x00")
    assert found.found
    assert not any(CANARY in path + description for path, description in found.found)


@given(st.text(max_size=40))
def test_what_the_checks_accept_is_safe_to_join_with_spaces(text: str) -> None:
    """Lists travel to the database joined by single spaces: nothing accepted may hold one."""
    if not faults(lambda f: f.name("t", text)) or is_scope(text) or is_scope_pattern(text):
        assert text
        assert not any(character.isspace() for character in text)


CATALOGUE = frozenset({"orders.read", "orders.write", "billing.items.read", "watchword.issue", "plain"})


@pytest.mark.parametrize(
    "scope", ["orders.read", "orders.*", "billing.*", "billing.items.*", "*", "watchword.*", "watchword.issue", "plain"]
)
def test_catalogued_scope_is_known(scope: str) -> None:
    assert unknown_scopes([scope], CATALOGUE) == []


@pytest.mark.parametrize("scope", ["order.*", "plain.*", "orders.read.*", "orders.rea", "ordersread", "watchword.read"])
def test_uncatalogued_scope_is_unknown(scope: str) -> None:
    assert [found for found, _ in unknown_scopes(["orders.read", scope], CATALOGUE)] == [scope]


def test_unknown_scope_comes_with_the_nearest_known_one() -> None:
    ((_, near),) = unknown_scopes(["orders.raed"], CATALOGUE)
    assert near == "is not in the catalogue; did you mean 'orders.read'?"
    ((_, far),) = unknown_scopes(["zzzzzzzzzz"], CATALOGUE)
    assert far == "is not in the catalogue; scopes are added with RegisterScopes"
