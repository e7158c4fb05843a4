"""The `authorization` entry in every shape that it must not have, and in those that it may."""

from __future__ import annotations

import grpc
import pytest

from tests.path.party import Party, Refusal, refused, unique
from watchword.token import new_token, new_token_id, parse_token

PATH = "/watchword.v1.TokenService/ListScopes"
Metadata = tuple[tuple[str, str | bytes], ...]


def _refused(admin: Party, metadata: Metadata) -> Refusal:
    answer = refused(admin.send, PATH, b"", metadata=metadata)
    assert answer.code is grpc.StatusCode.UNAUTHENTICATED
    assert answer.domain == "watchword"
    assert admin.secret[25:58] not in repr(answer)
    return answer


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_may_be_in_any_case(admin: Party, scheme: str) -> None:
    admin.send(PATH, b"", metadata=(("authorization", f"{scheme} {admin.secret}"),))


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("", "TOKEN_MALFORMED"),
        ("{}", "TOKEN_MALFORMED"),
        ("Bearer", "TOKEN_MALFORMED"),
        ("Bearer{}", "TOKEN_MALFORMED"),
        ("Bearer  {}", "TOKEN_MALFORMED"),
        ("Bearer {}x", "TOKEN_MALFORMED"),
        ("Bearer x{}", "TOKEN_MALFORMED"),
        ("Bearer {} {}", "TOKEN_MALFORMED"),
        ("Bearer Bearer {}", "TOKEN_MALFORMED"),
        ('Bearer "{}"', "TOKEN_MALFORMED"),
        ("Bearer token={}", "TOKEN_MALFORMED"),
        ("Basic {}", "TOKEN_MALFORMED"),
        ("Token {}", "TOKEN_MALFORMED"),
        ("DPoP {}", "TOKEN_MALFORMED"),
        ("Negotiate {}", "TOKEN_MALFORMED"),
        ("Bearers {}", "TOKEN_MALFORMED"),
        ("Bearer: {}", "TOKEN_MALFORMED"),
        ("Bearer {},Bearer {}", "TOKEN_AMBIGUOUS"),
        ("Bearer {}, Bearer {}", "TOKEN_AMBIGUOUS"),
        ("Bearer {},", "TOKEN_AMBIGUOUS"),
        (",Bearer {}", "TOKEN_AMBIGUOUS"),
        ("Basic eDp5, Bearer {}", "TOKEN_AMBIGUOUS"),
    ],
)
def test_any_other_shape_is_refused(admin: Party, shape: str, reason: str) -> None:
    value = shape.replace("{}", admin.secret)
    assert _refused(admin, (("authorization", value),)).reason == reason


def test_an_entry_that_is_absent_is_missing(admin: Party) -> None:
    bearer = f"Bearer {admin.secret}"
    for metadata in (
        (),
        (("x-authorization", bearer),),
        (("proxy-authorization", bearer),),
        (("authorization-bin", bearer.encode()),),
        (("cookie", f"authorization={bearer}"),),
    ):
        assert _refused(admin, metadata).reason == "TOKEN_MISSING"


def test_two_entries_are_ambiguous_whatever_they_hold(admin: Party) -> None:
    good, bad = f"Bearer {admin.secret}", "Bearer nonsense"
    for values in ((good, good), (good, bad), (bad, good), (good, ""), ("", good)):
        metadata = tuple(("authorization", value) for value in values)
        assert _refused(admin, metadata).reason == "TOKEN_AMBIGUOUS"


def test_an_authorization_bin_entry_beside_the_right_one_changes_nothing(admin: Party) -> None:
    admin.send(PATH, b"", metadata=(*admin.metadata, ("authorization-bin", b"Bearer nonsense")))
    assert _refused(admin, (("authorization-bin", admin.secret.encode()), ("authorization", "Bearer x"))).reason == (
        "TOKEN_MALFORMED"
    )


def test_tokens_that_are_wrong_in_themselves(admin: Party) -> None:
    issued = admin.issue(unique(), ["watchword"], ["watchword.read"]).secret
    flipped = issued[:-1] + ("0" if issued[-1] != "0" else "1")
    foreign = new_token(parse_token(issued).token_id, "other_").text.decode()
    for text in (issued[:-1], issued + "0", flipped, issued[3:], foreign, issued.swapcase(), "ww_" + "0" * 61, "."):
        assert _refused(admin, (("authorization", f"Bearer {text}"),)).reason == "TOKEN_MALFORMED", text
    admin.send(PATH, b"", metadata=(("authorization", f"Bearer {issued}"),))


def test_a_wrong_secret_and_an_unknown_id_are_refused_alike(admin: Party) -> None:
    issued = admin.issue(unique(), ["watchword"], ["watchword.read"]).secret
    token_id = parse_token(issued).token_id
    guessed = new_token(token_id).text.decode()
    unknown = new_token(new_token_id(token_id.int >> 80)).text.decode()
    one, other = (_refused(admin, (("authorization", f"Bearer {text}"),)) for text in (guessed, unknown))
    assert one == other
    assert one.reason == "TOKEN_INACTIVE"
