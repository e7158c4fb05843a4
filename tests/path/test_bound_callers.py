"""Callers of Watchword whose own tokens are bound: by real TLS connections, behind a proxy, and on streams."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import trustme

from tests.conftest import Watchword, running_watchword
from tests.databases import Databases
from tests.path.party import Party, administrator, refused, unique
from tests.path.watcher import Watcher, attached
from watchword.v1 import token_service_pb2 as pb

HERE = ["127.0.0.0/8", "::1/128"]
ELSEWHERE = ["192.0.2.0/24"]


def verifier(admin: Party, **fields: object) -> pb.IssueResponse:
    return admin.make(audiences=["watchword"], scopes=["watchword.validate"], **fields)


@dataclass(frozen=True)
class Secured:
    """A server that asks for client certificates, and two callers that have one each."""

    address: str
    ca: trustme.CA
    first: trustme.LeafCert
    second: trustme.LeafCert
    admin: Party
    stack: ExitStack

    def party(self, secret: str, certificate: trustme.LeafCert) -> Party:
        """A caller with this token over a connection made with this certificate."""
        return Party(self.stack.enter_context(_channel(self.address, self.ca, certificate)), secret)


def _channel(address: str, ca: trustme.CA, certificate: trustme.LeafCert) -> grpc.Channel:
    chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
    credentials = grpc.ssl_channel_credentials(ca.cert_pem.bytes(), certificate.private_key_pem.bytes(), chain)
    return grpc.secure_channel(address, credentials, options=[("grpc.ssl_target_name_override", "localhost")])


def sha256(certificate: trustme.LeafCert) -> bytes:
    """As OpenSSL would say it, not as the library does."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode())).digest()


@pytest.fixture(scope="module")
def secured(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder: Path = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    own = ca.issue_cert("localhost")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    own.private_key_pem.write_to_path(folder / "key.pem")
    for pem in own.cert_chain_pems:
        pem.write_to_path(folder / "certificate.pem", append=True)
    (folder / "key.pem").chmod(0o600)
    settings = {
        "WATCHWORD_TLS_CERTIFICATE_FILE": str(folder / "certificate.pem"),
        "WATCHWORD_TLS_KEY_FILE": str(folder / "key.pem"),
        "WATCHWORD_TLS_CLIENT_CA_FILE": str(folder / "ca.pem"),
    }
    first, second = ca.issue_cert("first.example"), ca.issue_cert("second.example")
    with postgres.fresh() as dsn, running_watchword(dsn, **settings) as watchword, ExitStack() as stack:
        channel = stack.enter_context(_channel(watchword.address, ca, first))
        admin = Party(channel, watchword.admin_token)
        yield Secured(watchword.address, ca, first, second, admin, stack)


def test_a_token_bound_to_a_certificate_is_good_over_its_connections_only(secured: Secured) -> None:
    made = verifier(secured.admin, certificate_sha256=sha256(secured.first))
    assert secured.party(made.secret, secured.first).verdict("nothing") == "inactive"
    thief = secured.party(made.secret, secured.second)
    for attempt in (lambda: thief.verdict("nothing"), thief.who_am_i, thief.rotate):
        answer = refused(attempt)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")
    # What the thief was denied, the holder still has.
    assert secured.party(made.secret, secured.first).who_am_i().token_id == made.token.token_id


def test_acceptance_over_one_connection_says_nothing_about_another(secured: Secured) -> None:
    """Two callers with one token at one moment share a read; each is judged by its own certificate."""
    made = verifier(secured.admin, certificate_sha256=sha256(secured.first))
    holder, thief = secured.party(made.secret, secured.first), secured.party(made.secret, secured.second)
    request = pb.ValidateRequest(token="nothing")
    for _ in range(50):
        good = holder.tokens.Validate.future(request, metadata=holder.metadata, timeout=20)
        bad = thief.tokens.Validate.future(request, metadata=thief.metadata, timeout=20)
        assert good.result().WhichOneof("verdict") == "inactive"
        assert refused(bad.result).reason == "TOKEN_INACTIVE"


def test_a_watch_needs_the_certificate_as_well(secured: Secured) -> None:
    made = verifier(secured.admin, certificate_sha256=sha256(secured.first))
    with attached(secured.party(made.secret, secured.first)) as watcher:
        watcher.renew()
    with Watcher(secured.party(made.secret, secured.second)) as watcher:
        end = watcher.ended()
    assert (end.code, end.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")


def test_a_watch_with_a_token_bound_to_networks(watchword: Watchword, admin: Party) -> None:
    """Behind the native transport a stream has no address, and then no network holds it."""
    here, elsewhere = verifier(admin, allowed_networks=HERE), verifier(admin, allowed_networks=ELSEWHERE)
    with Watcher(Party(admin.channel, elsewhere.secret)) as watcher:
        assert watcher.ended().reason == "TOKEN_INACTIVE"
    if watchword.server.transport == "native":
        with Watcher(Party(admin.channel, here.secret)) as watcher:
            assert watcher.ended().reason == "TOKEN_INACTIVE"
    else:
        with attached(Party(admin.channel, here.secret)) as watcher:
            watcher.renew()


@pytest.fixture(scope="module", params=["grpcio", "native"])
def behind_proxy(request: pytest.FixtureRequest, postgres: Databases) -> Iterator[Party]:
    """The administrator of a server that believes whoever calls from this machine."""
    with (
        postgres.fresh() as dsn,
        running_watchword(dsn, transport=request.param, WATCHWORD_TRUSTED_PROXIES="127.0.0.0/8, ::1/128") as running,
    ):
        yield administrator(running)


@pytest.mark.parametrize(
    ("forwarded", "accepted"),
    [
        (["192.0.2.1"], True),
        (["192.0.2.1:4711"], True),
        (["198.51.100.7, 192.0.2.1"], True),
        (["198.51.100.7", "192.0.2.1"], True),
        (["192.0.2.1, 127.0.0.1"], True),
        (["192.0.2.1, 198.51.100.7"], False),
        (["192.0.2.1", "198.51.100.7"], False),
        (["192.0.2.1, somebody"], False),
        (["192.0.2.1,"], False),
        (["127.0.0.1"], False),
        ([""], False),
        ([], False),
    ],
)
def test_behind_a_proxy_the_last_address_that_is_not_a_proxys_counts(
    behind_proxy: Party, forwarded: list[str], accepted: bool
) -> None:
    made = behind_proxy.make(subject=unique(), audiences=["watchword"], allowed_networks=ELSEWHERE)
    caller = Party(behind_proxy.channel, made.secret)
    metadata = (*caller.metadata, *(("x-forwarded-for", value) for value in forwarded))
    if accepted:
        caller.tokens.WhoAmI(pb.WhoAmIRequest(), metadata=metadata, timeout=20)
    else:
        answer = refused(caller.tokens.WhoAmI, pb.WhoAmIRequest(), metadata=metadata, timeout=20)
        assert (answer.code, answer.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INACTIVE")
