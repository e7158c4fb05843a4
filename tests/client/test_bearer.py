"""What counts as one bearer token, and what is refused."""

from collections import namedtuple

import pytest

from watchword.bearer import BearerError, bearer_token

TOKEN = "ww_canary0secret"
Metadatum = namedtuple("Metadatum", ["key", "value"])


def reason(*metadata: tuple[str, str | bytes]) -> str:
    with pytest.raises(BearerError) as caught:
        bearer_token(metadata)
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_matched_in_any_case(scheme: str) -> None:
    assert bearer_token([("user-agent", "x"), ("authorization", f"{scheme} {TOKEN}"), ("x-bin", b"\0")]) == TOKEN


def test_named_tuples_serve_as_pairs() -> None:
    assert bearer_token(iter([Metadatum("authorization", f"Bearer {TOKEN}")])) == TOKEN


def test_no_entry_is_missing() -> None:
    assert reason() == "TOKEN_MISSING"
    assert reason(("x-authorization", f"Bearer {TOKEN}")) == "TOKEN_MISSING"


def test_the_binary_key_is_another_key() -> None:
    assert reason(("authorization-bin", f"Bearer {TOKEN}".encode())) == "TOKEN_MISSING"


def test_two_entries_are_ambiguous_even_if_equal() -> None:
    entry = ("authorization", f"Bearer {TOKEN}")
    assert reason(entry, ("x", "y"), entry) == "TOKEN_AMBIGUOUS"
    assert reason(("authorization", "Basic eA=="), entry) == "TOKEN_AMBIGUOUS"
    assert reason(entry, ("authorization", "")) == "TOKEN_AMBIGUOUS"


@pytest.mark.parametrize(
    "value", [f"Bearer {TOKEN}, Bearer {TOKEN}", f"Bearer {TOKEN},Bearer {TOKEN}", f"Basic eA==, Bearer {TOKEN}", ","]
)
def test_joined_entries_are_ambiguous(value: str) -> None:
    assert reason(("authorization", value)) == "TOKEN_AMBIGUOUS"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Bearer  {TOKEN}",
        f"Bearer\t{TOKEN}",
        f"Bearer \t{TOKEN}",
        f" Bearer {TOKEN}",
        f"\tBearer {TOKEN}",
        f"Bearer {TOKEN} ",
        f"Bearer {TOKEN}\t",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer {TOKEN}\n",
        f"Bearer {TOKEN}\0",
        f"Bearer {TOKEN}é",
        f"Bearer:{TOKEN}",
        f"Bearer_{TOKEN}",
        f"Bearers {TOKEN}",
        f"Basic {TOKEN}",
        f"Token {TOKEN}",
        f"Be\N{LATIN SMALL LETTER A WITH RING ABOVE}rer {TOKEN}",
        b"Bearer " + TOKEN.encode(),
    ],
)
def test_everything_else_is_malformed(value: str | bytes) -> None:
    assert reason(("authorization", value)) == "TOKEN_MALFORMED"
