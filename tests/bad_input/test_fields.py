"""Well-formed requests with values that nobody should send."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import ParamSpec

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.path.party import Party, Refusal, grant, refused, unique
from watchword.v1 import token_service_pb2 as pb

P = ParamSpec("P")

COUNT = 100_000
UNSEEN = {
    "NUL": "a\x00b",
    "newline": "a\nb",
    "escape": "a\x1b[2Jb",
    "delete": "a\x7fb",
    "next line": "a\x85b",
    "right-to-left override": "a\u202eb",
    "right-to-left mark": "a\u200fb",
    "isolate": "a\u2066b",
    "zero width space": "a\u200bb",
    "byte order mark": "\ufeffa",
    "soft hyphen": "a\u00adb",
    "line separator": "a\u2028b",
    "private use": "a\ue000b",
    "unassigned": "a\U000e0fffb",
    "tag": "a\U000e0041b",
}
LOOK_ALIKES = {
    "Cyrillic o": "\u043erders.read",
    "fullwidth letters": "\uff4frders.read",
    "fullwidth dot": "orders\uff0eread",
    "one dot leader": "orders\u2024read",
    "long s": "order\u017f.read",
    "Kelvin sign": "\u212aeys.read",
    "dotless i": "l\u0131st.read",
    "combining accent": "orders.re\u0301ad",
    "Arabic digit": "orders.v\u0661",
    "upper case": "Orders.read",
    "trailing newline": "orders.read\n",
    "space": "orders. read",
    "NUL": "orders.read\x00",
}


def _issue(admin: Party, request: pb.IssueRequest) -> Refusal:
    answer = refused(admin.tokens.Issue, request, metadata=admin.metadata, timeout=20)
    assert (answer.code, answer.reason, answer.domain) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        "watchword",
    )
    return answer


def _request(
    *,
    subject: str = "x",
    scopes: Sequence[str] = (),
    audiences: Sequence[str] = ("x",),
    grants: Sequence[pb.Grant] = (),
    metadata: Mapping[str, str] | None = None,
    name: str = "",
    request_id: str = "",
) -> pb.IssueRequest:
    return pb.IssueRequest(
        subject=subject,
        scopes=scopes,
        audiences=audiences,
        grants=grants,
        metadata=metadata or {},
        name=name,
        request_id=request_id,
    )


@pytest.mark.parametrize("kind", sorted(UNSEEN))
def test_what_cannot_be_seen_is_refused_in_every_text(admin: Party, kind: str) -> None:
    text = UNSEEN[kind]
    assert _issue(admin, _request(name=text)).fields == ("name",)
    assert _issue(admin, _request(subject=text)).fields == ("subject",)
    assert _issue(admin, _request(audiences=["x", text])).fields == ("audiences[1]",)
    assert _issue(admin, _request(scopes=[text])).fields == ("scopes[0]",)
    assert _issue(admin, _request(request_id=text)).fields == ("request_id",)
    assert _issue(admin, _request(metadata={"k": text})).fields == ("metadata[k]",)
    assert _issue(admin, _request(metadata={text: "v"})).fields == ("metadata",)
    for bad, field in (
        (pb.Grant(scopes=[text], subjects=["x"], audiences=["x"]), "scopes"),
        (pb.Grant(subjects=[text], audiences=["x"]), "subjects"),
        (pb.Grant(subjects=["x"], audiences=[text]), "audiences"),
    ):
        assert _issue(admin, _request(grants=[bad])).fields == (f"grants[0].{field}[0]",)
    assert refused(admin.revoke, pb.RevokeRequest(subject="x", reason=text)).fields == ("reason",)
    assert refused(admin.revoke, subject=text).fields == ("subject",)
    bad_scope = pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name="a.b", description=text)])
    answer = refused(admin.tokens.RegisterScopes, bad_scope, metadata=admin.metadata, timeout=20)
    assert answer.fields == ("scopes[0].description",)


@pytest.mark.parametrize(
    "text", ["größer", "名前", "👍🏽", "a\u0301", 'O\'Neil "quoted" \\ {} $1 %s ; drop table tokens']
)
def test_visible_text_of_any_script_is_kept_as_it_is(admin: Party, text: str) -> None:
    issued = admin.issue(unique(), name=text, metadata={"k": text})
    assert (issued.token.name, issued.token.metadata["k"]) == (text, text)
    record = admin.record(issued.token.token_id)
    assert (record.name, record.metadata["k"]) == (text, text)


@pytest.mark.parametrize("kind", sorted(LOOK_ALIKES))
def test_a_look_alike_is_no_scope(admin: Party, kind: str) -> None:
    scope = LOOK_ALIKES[kind]
    assert _issue(admin, _request(scopes=[scope])).fields == ("scopes[0]",)
    grants = [pb.Grant(scopes=[scope], subjects=["x"], audiences=["x"])]
    assert _issue(admin, _request(grants=grants)).fields == ("grants[0].scopes[0]",)
    answer = refused(admin.validate, "token", scope)
    assert (answer.code, answer.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("required_scopes[0]",))
    asked = pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name=scope)])
    answer = refused(admin.tokens.RegisterScopes, asked, metadata=admin.metadata, timeout=20)
    assert answer.fields == ("scopes[0].name",)


@pytest.mark.parametrize(
    "ttl",
    [
        Duration(seconds=2**63 - 1),
        Duration(seconds=-(2**63)),
        Duration(seconds=2**63 - 1, nanos=999_999_999),
        Duration(seconds=315_576_000_000),
        Duration(seconds=315_576_000_001),
        Duration(seconds=-1),
        Duration(seconds=0),
        Duration(nanos=-1),
        Duration(seconds=60, nanos=-1),
        Duration(seconds=-60, nanos=1),
        Duration(seconds=60, nanos=2**31 - 1),
        Duration(seconds=60, nanos=-(2**31)),
    ],
)
def test_an_extreme_or_inconsistent_duration_is_refused(admin: Party, ttl: Duration) -> None:
    assert _issue(admin, pb.IssueRequest(subject="x", audiences=["x"], ttl=ttl)).fields == ("ttl",)


def _patiently(call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> tuple[str, ...]:
    """The fields that a call is refused for. Unpacking the one before may have made the server late: then it sheds."""
    until = time.monotonic() + 30
    while (answer := refused(call, *args, **kwargs)).reason == "OVERLOADED":
        assert time.monotonic() < until
    return answer.fields


def test_lists_of_a_hundred_thousand_are_refused_by_their_length(admin: Party) -> None:
    token_id, many = admin.make().token.token_id, ["x"] * COUNT
    assert _patiently(admin.make, scopes=many) == ("scopes",)
    assert _patiently(admin.make, audiences=many) == ("audiences",)
    assert _patiently(admin.make, allowed_networks=many) == ("allowed_networks",)
    assert _patiently(admin.make, metadata={f"k{at}": "" for at in range(COUNT)}) == ("metadata",)
    assert _patiently(admin.make, grants=[pb.Grant()] * COUNT) == ("grants",)
    wide = pb.Grant(scopes=many, subjects=many, audiences=many)
    assert _patiently(admin.make, grants=[wide]) == (
        "grants[0].scopes",
        "grants[0].subjects",
        "grants[0].audiences",
    )
    assert _patiently(admin.validate, "x", *many) == ("required_scopes",)
    assert _patiently(admin.batch, *many) == ("requests",)
    narrowing = pb.NarrowRequest(token_id=token_id, remove_scopes=many)
    assert _patiently(admin.narrow, narrowing) == ("remove_scopes",)
    registrations = pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name="a.b")] * COUNT)
    assert _patiently(admin.tokens.RegisterScopes, registrations, metadata=admin.metadata, timeout=20) == ("scopes",)
    # Whatever comes next is let in again.
    assert _patiently(admin.get, pb.GetTokenRequest()) == ("target",)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (_request(audiences=[]), "audiences"),
        (_request(audiences=[""]), "audiences[0]"),
        (_request(audiences=["x"] * 65), "audiences"),
        (_request(audiences=["team/*"]), "audiences[0]"),
        (_request(scopes=[""]), "scopes[0]"),
        (_request(scopes=["a.b"] * 65), "scopes"),
        (_request(scopes=["a.*.b"]), "scopes[0]"),
        (_request(scopes=["a*"]), "scopes[0]"),
        (_request(scopes=["a." + "b" * 127]), "scopes[0]"),
        (_request(grants=[pb.Grant()] * 17), "grants"),
        (_request(subject="x" * 256), "subject"),
        (_request(subject="*"), "subject"),
        (_request(subject="-x"), "subject"),
        (_request(name="x" * 256), "name"),
        (_request(request_id="x" * 129), "request_id"),
        (_request(request_id=" "), "request_id"),
        (_request(metadata={f"k{at}": "" for at in range(33)}), "metadata"),
        (_request(metadata={"": "v"}), "metadata"),
        (_request(metadata={"k" * 65: "v"}), "metadata"),
        (_request(metadata={"k": "v" * 1025}), "metadata[k]"),
        (_request(grants=[pb.Grant(scopes=["a.b"], audiences=["x"])]), "grants[0].subjects"),
        (_request(grants=[pb.Grant(scopes=["a.b"], subjects=["x"])]), "grants[0].audiences"),
        (_request(grants=[grant("a.b", "a*", "x")]), "grants[0].subjects[0]"),
        (_request(grants=[grant("a.b", "*/a", "x")]), "grants[0].subjects[0]"),
        (_request(grants=[grant("a.b", "/*", "x")]), "grants[0].subjects[0]"),
    ],
)
def test_a_field_beyond_its_limit_is_named(admin: Party, request_: pb.IssueRequest, field: str) -> None:
    assert _issue(admin, request_).fields == (field,)


def test_fields_at_their_limits_are_taken(admin: Party) -> None:
    metadata = {f"{at:064}": "é" * 128 for at in range(32)}
    grants = [grant("a.b " * 63 + "*", "x " * 63 + "*", "x " * 63 + "*")] * 16
    issued = admin.issue(
        "s" * 255,
        ["a" * 25] * 64,
        ["*"] * 64,
        grants=grants,
        name="é" * 255,
        metadata=metadata,
        request_id=unique() + "x" * 110,
    )
    record = admin.record(issued.token.token_id)
    assert dict(record.metadata) == metadata
    assert list(record.grants) == grants
    long = admin.issue(unique(), ["a" * 255], metadata={"k" * 64: "é" * 1024}).token
    assert long.audiences == ["a" * 255]
    assert long.metadata["k" * 64] == "é" * 1024


def test_a_token_at_its_limits_fills_no_verifiers_answer(admin: Party) -> None:
    """Interceptors ask about 256 at a time and read 4 MiB: a longer token would refuse whoever shares its batch."""
    metadata = {f"k{at:02}": "é" * 512 for at in range(11)}
    carried = {**metadata, "rest": "x" * (12 * 1024 - 11 * (3 + 1024) - len("rest") - len("admin"))}
    secret = admin.issue(unique(), ["admin"], metadata=carried).secret
    answers = admin.batch(*[secret] * 256).responses
    assert [answer.active.metadata for answer in answers] == [carried] * 256
    over = _request(audiences=["admin"], metadata={**carried, "rest": carried["rest"] + "x"})
    assert _issue(admin, over).fields == ("metadata",)


def test_grants_beyond_12_kib_are_refused(admin: Party) -> None:
    wide = grant("a.b " * 16, ("x" * 200 + " ") * 10, ("y" * 200 + " ") * 10)
    assert _issue(admin, _request(grants=[wide] * 4)).fields == ("grants",)


def test_faults_by_the_hundred_fit_into_what_a_client_reads(admin: Party) -> None:
    # The details travel as metadata, perhaps as base64; clients take 8 KiB, and refuse more at random.
    stem = unique("s") + "." + "x" * 100
    admin.register(f"{stem}.read")
    answers = [
        _issue(admin, _request(scopes=[f"{stem}.raed{at}" for at in range(64)])),
        _issue(admin, _request(grants=[grant("B " * 64, "* *x " * 32, "*x " * 64)] * 16)),
        _issue(admin, _request(metadata={f"{at:064}": "x" * 1025 for at in range(32)})),
        refused(admin.validate, "x", *["\U000e0041" * 1000] * 64),
    ]
    for answer in answers:
        assert len(answer.fields) >= 8
        assert answer.details_bytes * 4 / 3 + len(answer.message) < 7000


def test_a_refusal_repeats_nothing_of_what_was_sent_but_names(admin: Party) -> None:
    secret = admin.issue(unique()).secret
    for answer in (
        _issue(admin, _request(name=secret + "\x00")),
        _issue(admin, _request(subject=secret + " ")),
        _issue(admin, _request(metadata={secret + " ": "v"})),
        refused(admin.validate, "x", secret),
        refused(admin.revoke, token_id=secret),
        refused(admin.list_scopes, pb.ListScopesRequest(page_token=secret)),
    ):
        assert secret[25:58] not in repr(answer)
