"""The token format: what is written is read, and nothing else is."""

from __future__ import annotations

import string
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchword.token import (
    BODY_LENGTH,
    PREFIX_DEFAULT,
    MalformedTokenError,
    check_prefix,
    expires_at_ms,
    format_token_id,
    new_token,
    new_token_id,
    parse_token,
    parse_token_id,
    token_pattern,
)

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
milliseconds = st.integers(0, (1 << 48) - 1)
prefixes = st.from_regex(r"[a-z][a-z0-9]{0,14}_", fullmatch=True)
tokens = st.builds(lambda ms: new_token(new_token_id(ms)), milliseconds)


@given(milliseconds, prefixes)
def test_what_is_made_is_read(ends_at_ms: int, prefix: str) -> None:
    made = new_token(new_token_id(ends_at_ms), prefix)
    text = made.text.decode()
    assert parse_token(text, prefix) == parse_token(made.text, prefix) == made
    assert len(text) == len(prefix) + BODY_LENGTH
    assert text[len(prefix) :].isalnum()
    assert expires_at_ms(made.token_id) == ends_at_ms
    assert (made.token_id.version, made.token_id.variant) == (8, "specified in RFC 4122")
    assert token_pattern(prefix).fullmatch(text)


def test_a_token_has_64_characters_and_192_secret_bits() -> None:
    token_id = new_token_id(0)
    drawn = [new_token(token_id).text for _ in range(200)]
    assert {len(one) for one in drawn} == {64}
    assert len(set(drawn)) == 200
    assert len({one[25:58] for one in drawn}) == 200


@given(tokens, st.data())
def test_every_change_of_one_character_is_refused(token: object, data: st.DataObject) -> None:
    text = token.text.decode()  # type: ignore[attr-defined]
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(ALPHABET + "_- .\0\n") | st.characters())
    changed = text[:at] + other + text[at + 1 :]
    if changed != text:
        with pytest.raises(MalformedTokenError):
            parse_token(changed)


def test_every_change_of_one_character_of_one_token_is_refused_exhaustively() -> None:
    text = new_token(new_token_id(1_800_000_000_000)).text.decode()
    for at in range(len(text)):
        for other in ALPHABET + "_-":
            if other != text[at]:
                with pytest.raises(MalformedTokenError):
                    parse_token(text[:at] + other + text[at + 1 :])


@given(tokens, st.data())
def test_every_swap_of_neighbours_is_refused(token: object, data: st.DataObject) -> None:
    text = token.text.decode()  # type: ignore[attr-defined]
    at = data.draw(st.integers(0, len(text) - 2))
    changed = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if changed != text:
        with pytest.raises(MalformedTokenError):
            parse_token(changed)


@given(st.text() | st.binary())
def test_anything_else_is_refused_by_the_one_error_and_not_repeated(text: str | bytes) -> None:
    with pytest.raises(MalformedTokenError) as caught:
        parse_token(text)
    if len(text) > 12:
        assert str(text) not in str(caught.value)


@given(tokens, prefixes.filter(lambda prefix: prefix != PREFIX_DEFAULT))
def test_a_foreign_prefix_is_refused(token: object, prefix: str) -> None:
    with pytest.raises(MalformedTokenError):
        parse_token(token.text, prefix)  # type: ignore[attr-defined]


@given(st.uuids())
def test_ids_other_than_version_8_are_refused_or_read_back_alike(token_id: UUID) -> None:
    text = format_token_id(token_id)
    if token_id.version == 8:
        assert parse_token_id(text) == token_id
    else:
        with pytest.raises(MalformedTokenError):
            parse_token_id(text)


@given(st.text(ALPHABET, min_size=22, max_size=22))
def test_an_id_has_one_spelling(text: str) -> None:
    try:
        token_id = parse_token_id(text)
    except MalformedTokenError:
        return
    assert format_token_id(token_id) == text


@given(milliseconds, milliseconds)
def test_ids_sort_by_expiry(one: int, other: int) -> None:
    if one != other:
        first, second = sorted((one, other))
        ids = [new_token_id(first), new_token_id(second)]
        assert sorted(ids) == ids
        assert sorted(map(format_token_id, ids)) == [format_token_id(token_id) for token_id in ids]


@pytest.mark.parametrize("ends_at_ms", [-1, 1 << 48])
def test_an_expiry_outside_48_bits_is_refused(ends_at_ms: int) -> None:
    with pytest.raises(ValueError, match="48 bits"):
        new_token_id(ends_at_ms)


@pytest.mark.parametrize("prefix", ["", "ww", "_", "WW_", "1w_", "w-w_", "ww__", "a" * 16 + "_", "ww_\n", "\u0430_"])
def test_a_doubtful_prefix_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        check_prefix(prefix)


def test_no_repr_shows_the_secret() -> None:
    token = new_token(new_token_id(0))
    assert token.text.decode()[25:] not in repr(token)
