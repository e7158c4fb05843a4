"""Where a call comes from is found out once, and nothing that fails on the way admits anybody."""

from __future__ import annotations

from typing import Any

import pytest
import trustme

from tests.client.bound_calls import sha256
from watchword.identity import Identity
from watchword.interceptor.call_aio import Call, Offers
from watchword.interceptor.denial import INACTIVE
from watchword.interceptor.origin import Origin, Origins
from watchword.network import Networks, address_of_peer
from watchword.verifier import Active, Bindings, Bound, Verdict

CALLER = "203.0.113.7"
IDENTITY = Identity("id", "alice", (), ("*",))


class Context:
    """As much of a call as is asked for, and how often it was."""

    def __init__(
        self, peer: str = "ipv4:10.0.0.1:5", certificates: list[bytes] | None = None, forwarded_for: str = ""
    ) -> None:
        self.asked: list[str] = []
        self._peer = peer
        self._certificates = certificates
        self._forwarded_for = forwarded_for

    def peer(self) -> str:
        self.asked.append("peer")
        return self._peer

    def invocation_metadata(self) -> Any:
        return (("x-forwarded-for", self._forwarded_for),) if self._forwarded_for else None

    def auth_context(self) -> Any:
        self.asked.append("auth_context")
        return {} if self._certificates is None else {"x509_pem_cert": self._certificates}


class Broken(Context):
    def auth_context(self) -> Any:
        raise RuntimeError("the call has ended")


class Bounder:
    """A verifier to which every token is bound, and that is told what became of the calls."""

    def __init__(self, bindings: Bindings) -> None:
        self.verdict = Bound(bindings, Active(IDENTITY))
        self.counted: list[tuple[str, bool]] = []

    async def check(self, token: str, required_scopes: tuple[str, ...], *, peer: Any = None) -> Verdict:
        return self.verdict

    def check_now(self, token: str, required_scopes: tuple[str, ...]) -> Verdict | None:
        return self.verdict

    def count_bound(self, bound: Bound, required_scopes: tuple[str, ...], address: str, *, is_admitted: bool) -> None:
        self.counted.append((address, is_admitted))


@pytest.fixture(scope="module")
def certificate() -> trustme.LeafCert:
    return trustme.CA().issue_cert("orders.example")


def pem(certificate: trustme.LeafCert) -> bytes:
    return certificate.cert_chain_pems[0].bytes()


def test_it_is_the_connections_address_and_certificate(certificate: trustme.LeafCert) -> None:
    context: Any = Context(certificates=[pem(certificate)])
    assert Origins((), None).of(context) == Origin("10.0.0.1", sha256(certificate))


@pytest.mark.parametrize("certificates", [None, [], [b""], [b"junk"]])
def test_what_is_no_certificate_is_none(certificates: list[bytes] | None) -> None:
    assert Origins((), None).of(Context(certificates=certificates)).certificate_sha256 == b""


def test_of_two_certificates_neither_is_the_callers(certificate: trustme.LeafCert) -> None:
    context = Context(certificates=[pem(certificate), pem(certificate)])
    assert Origins((), None).of(context).certificate_sha256 == b""


def test_what_fails_to_be_found_out_is_not_known() -> None:
    assert Origins((), None).of(Broken()) == Origin()


@pytest.mark.parametrize("address", [CALLER, "2001:db9::1"])
def test_a_verifier_is_told_of_the_caller_behind_the_proxy(address: str) -> None:
    direct, behind = Origins((), None), Origins(("10.0.0.0/8",), None)
    context = Context(forwarded_for=address)
    assert direct.peer(context)() == "ipv4:10.0.0.1:5"
    assert address_of_peer(behind.peer(context)()) == address
    assert behind.peer(Context())() == "", "a proxy that vouches for nobody is nobody's address"


async def test_a_call_is_asked_once_where_it_comes_from_however_many_messages_it_has() -> None:
    verifier = Bounder(Bindings(Networks(["10.0.0.0/8"])))
    context: Any = Context()
    call = Call(Offers(verifier), "token", ())
    for _ in range(5):
        assert call.admit_now(context) is IDENTITY
        assert await call.decide(context) is IDENTITY
    assert context.asked == ["peer", "auth_context"]
    assert verifier.counted == [("10.0.0.1", True)] * 10


async def test_a_call_that_did_not_match_stays_refused_and_is_counted_once() -> None:
    verifier = Bounder(Bindings(Networks(["192.168.0.0/16"])))
    context: Any = Context()
    call = Call(Offers(verifier), "token", ())
    for _ in range(3):
        assert call.admit_now(context) is None
        assert await call.decide(context) is INACTIVE
    assert verifier.counted == [("10.0.0.1", False)]


@pytest.mark.parametrize(
    ("bindings", "matches"),
    [
        (Bindings(), True),
        (Bindings(Networks(["10.0.0.0/8"])), True),
        (Bindings(Networks(["10.0.0.0/8"]), b"c" * 32), True),
        (Bindings(certificate_sha256=b"c" * 32), True),
        (Bindings(Networks(["10.0.0.0/8"]), b"d" * 32), False),
        (Bindings(Networks(["192.168.0.0/16"]), b"c" * 32), False),
    ],
)
def test_everything_that_is_given_has_to_match(bindings: Bindings, matches: bool) -> None:
    assert bindings.match("10.0.0.1", b"c" * 32) is matches
    unknown = not bindings.allowed_networks and not bindings.certificate_sha256
    assert bindings.match("", b"") is unknown
