"""One secret, pushed through every way into the server, and then searched for in everything that comes out of it."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import grpc
import psutil
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.conftest import Watchword, running_watchword
from tests.path.party import AUDIT_SERVICE, TOKEN_SERVICE, Party, administrator, unique
from tests.path.test_access import METHODS, REQUESTS
from tests.path.watcher import WATCH_PATH
from watchword.token import new_token, new_token_id, parse_token
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import verifier_service_pb2 as watch_pb
from watchword_server.admin import BootstrapResult
from watchword_server.answer.issue import IssuedToken
from watchword_server.answer.revoke import RevokeOrder
from watchword_server.embedded.programs import Programs
from watchword_server.keyring import Keyring
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Selector

INTERNAL_SENTENCE = "internal error; the server's log has the details"
_METRICS = re.compile(r"metrics on (http://\S+/metrics)")


@dataclass
class Canary:
    """A server of the test's own, a secret, and all that was said about it."""

    running: Watchword
    admin: Party
    secrets: list[str]
    said: list[str] = field(default_factory=list)

    def send(self, path: str, data: bytes, metadata: tuple[tuple[str, str | bytes], ...] | None = None) -> None:
        """Sends it and keeps whatever comes back: message, trailing metadata, answer."""
        with self._kept():
            self.said.append(self.admin.send(path, data, metadata).decode("latin-1"))

    def watch(self, *messages: bytes, metadata: tuple[tuple[str, str], ...] | None = None) -> None:
        """Opens a watch, says it and keeps whatever comes back until the stream ends."""
        stream: grpc.StreamStreamMultiCallable[bytes, bytes] = self.admin.channel.stream_stream(
            WATCH_PATH, bytes, bytes
        )
        with self._kept():
            for answer in stream(iter(messages), metadata=metadata or self.admin.metadata, timeout=60):
                self.said.append(answer.decode("latin-1"))

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            self.said.append(repr(error))
            call: Any = error
            self.said += [f"{call.details()}", repr(call.trailing_metadata()), repr(call.initial_metadata())]

    def found_in(self, text: str) -> list[str]:
        """Which of the secrets is in a text: whole, its secret half, or either as base64 or hex."""
        forms = []
        for secret in self.secrets:
            half = secret[25:58] if secret.startswith("ww_") else secret
            for one in (secret, half):
                forms += [one, base64.b64encode(one.encode()).decode().rstrip("=")[:-1], one.encode().hex()]
        return [form for form in forms if form in text]


@pytest.fixture(params=["grpcio", "native"])
def canary(request: pytest.FixtureRequest, dsn: str) -> Iterator[Canary]:
    """The secret went through every method, in every field, well formed and not."""
    with running_watchword(dsn, transport=request.param, WATCHWORD_LOG_LEVEL="debug") as running:
        admin = administrator(running)
        secret = admin.issue(unique(), ["watchword", "*"], ["watchword.*"]).secret
        made = Canary(running, admin, [secret, admin.secret])
        _everywhere(made, secret)
        yield made


def _everywhere(canary: Canary, secret: str) -> None:
    forged = new_token(parse_token(secret).token_id).text.decode()
    canary.secrets.append(forged)
    for token in (
        secret,
        forged,
        secret[:-1],
        secret + "0",
        "ww_" + secret,
        secret.replace("ww_", "xx_"),
        secret.lower(),
    ):
        requests = (
            ("Validate", pb.ValidateRequest(token=token)),
            ("Validate", pb.ValidateRequest(token=token, required_scopes=[token])),
            ("BatchValidate", pb.BatchValidateRequest(requests=[pb.ValidateRequest(token=token)] * 2)),
            ("GetToken", pb.GetTokenRequest(token=token, as_verifier="orders")),
            ("GetToken", pb.GetTokenRequest(token=token)),
            ("GetToken", pb.GetTokenRequest(token_id=token)),
            ("GetToken", pb.GetTokenRequest(token_id=token[3:25], as_verifier=token + " ")),
            ("ListScopes", pb.ListScopesRequest(token=token)),
            ("ListScopes", pb.ListScopesRequest(token_id=token, page_token=token)),
            ("ListTokens", pb.ListTokensRequest(subject=token + " ", page_token=token)),
            ("ListTokens", pb.ListTokensRequest(issued_by=token)),
            ("Revoke", pb.RevokeRequest(token_id=token)),
            ("Revoke", pb.RevokeRequest(issued_by=token)),
            (
                "Issue",
                pb.IssueRequest(subject=token + " ", scopes=[token], name=token + "\x00", request_id=token + " "),
            ),
            ("Issue", pb.IssueRequest(subject="x", audiences=["x"], metadata={token: token})),
            ("RegisterScopes", pb.RegisterScopesRequest(scopes=[pb.ScopeRegistration(name=token)])),
        )
        for method, request in requests:
            data = request.SerializeToString()
            canary.send(TOKEN_SERVICE + method, data)
            canary.send(TOKEN_SERVICE + method, data[:-1])
            canary.send(TOKEN_SERVICE + method, data + b"\xff")
            canary.send(TOKEN_SERVICE + method, data, metadata=())
        for value in (f"Bearer {token}", f"bearer  {token}", f"Basic {token}", f"{token}", f"Bearer {token},{token}"):
            canary.send(AUDIT_SERVICE + "ListEvents", b"", metadata=(("authorization", value),))
            canary.send(TOKEN_SERVICE + "ListScopes", b"\xff", metadata=(("authorization", value),))
            canary.watch(b"\xff", metadata=(("authorization", value),))
        _watch_with(canary, token)
        canary.send(f"{TOKEN_SERVICE}{token}", b"")
    canary.send(TOKEN_SERVICE + "Revoke", pb.RevokeRequest(token=forged).SerializeToString())
    canary.send(TOKEN_SERVICE + "Revoke", pb.RevokeRequest(token=secret).SerializeToString())


def _watch_with(canary: Canary, token: str) -> None:
    text, position = token.encode(), pb.Position(epoch=token.encode(), number=1)
    hello = watch_pb.Hello(verifier_key=uuid4().bytes, lease=Duration(seconds=1), name="orders")
    greeting = watch_pb.WatchRequest(hello=hello).SerializeToString()
    for message in (
        watch_pb.WatchRequest(hello=watch_pb.Hello(verifier_key=text)),
        watch_pb.WatchRequest(hello=watch_pb.Hello(verifier_key=text[:16], name=token + "\x00")),
        watch_pb.WatchRequest(hello=watch_pb.Hello(verifier_key=text[:16], instance=token * 10)),
        watch_pb.WatchRequest(hello=watch_pb.Hello(verifier_key=text[:16], library=token + "\x1b")),
        watch_pb.WatchRequest(hello=watch_pb.Hello(verifier_key=text[25:41], resume_from=position)),
    ):
        canary.watch(message.SerializeToString())
    canary.watch(text)
    canary.watch(
        greeting, watch_pb.WatchRequest(acknowledge=watch_pb.Acknowledge(applied=position)).SerializeToString()
    )
    canary.watch(greeting, watch_pb.WatchRequest(renew=watch_pb.Renew(applied=position)).SerializeToString(), text)


def _break_everything(canary: Canary) -> None:
    """Takes tables from under the server, so that every statement fails in a way nobody foresaw."""
    with psycopg.connect(canary.running.dsn, autocommit=True) as database:
        database.execute("alter table tokens rename column digest to elsewhere")
        _send_all(canary)
        database.execute("alter table tokens rename column elsewhere to digest")
        for statement in (
            "drop table audit_events",
            "drop table scopes",
            "drop table issue_requests",
            "alter table tokens drop column name",
        ):
            database.execute(statement)
            _send_all(canary)


def _send_all(canary: Canary) -> None:
    for path in METHODS:
        canary.send(path, REQUESTS[path].SerializeToString())
    for token in canary.secrets[::2]:
        canary.send(TOKEN_SERVICE + "Validate", pb.ValidateRequest(token=token).SerializeToString())
        canary.send(TOKEN_SERVICE + "Revoke", pb.RevokeRequest(token=token).SerializeToString())


def _peppers(folder: Path) -> list[str]:
    dumped: dict[str, Any] = json.loads((folder / "keyring").read_text())
    return [str(pepper) for pepper in dumped["peppers"].values()]


def test_the_secret_is_in_no_answer_log_metric_or_dump(canary: Canary) -> None:
    running = canary.running
    peppers = _peppers(running.server.data_dir)
    canary.secrets += [*peppers, *(base64.b64decode(pepper).hex() for pepper in peppers)]
    dump = subprocess.run(
        [str(Programs(None).folder / "pg_dump"), running.dsn], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "COPY public.tokens" in dump
    _break_everything(canary)
    found = _METRICS.search("".join(running.server.log))
    assert found is not None
    with urlopen(found[1], timeout=10) as response:
        metrics = response.read().decode()
    assert "watchword" in metrics
    running.server.stop()
    log = "".join(running.server.log)
    assert "Traceback" in log  # The tables that went missing are in it: the log is not clean because it is empty.
    said = "\n".join(canary.said)
    assert INTERNAL_SENTENCE in said
    for where, text in (("answers", said), ("log", log), ("metrics", metrics), ("dump", dump)):
        assert canary.found_in(text) == [], where


def test_the_secret_is_in_nothing_that_workers_say_or_show(dsn: str) -> None:
    with running_watchword(dsn, WATCHWORD_WORKERS="2", WATCHWORD_LOG_LEVEL="debug") as running:
        admin = administrator(running)
        secret = admin.issue(unique(), ["watchword", "*"], ["watchword.*"]).secret
        canary = Canary(running, admin, [secret, admin.secret, *_peppers(running.server.data_dir)])
        _everywhere(canary, secret)
        processes = psutil.Process(running.server.pid).children(recursive=True)
        assert len(processes) >= 2
        shown = "\n".join(repr((one.cmdline(), one.environ())) for one in processes)
        running.server.stop()
        log = "".join(running.server.log)
        assert "stopped, all workers" in log
        for where, text in (("answers", "\n".join(canary.said)), ("log", log), ("processes", shown)):
            assert canary.found_in(text) == [], where


def test_the_secret_in_an_export_is_not_repeated(canary: Canary) -> None:
    server, secret = canary.running.server, canary.secrets[0]
    server.stop()
    export = server.data_dir / "export"
    for text in (
        f'{{"action": "revoke", "token_id": "{secret}", "details": {{"count": "1"}}}}',
        f'{{"action": "{secret}", "token_id": "{secret}"}}',
        f'{{"{secret}',
        secret,
    ):
        export.write_text(text)
        for output in ("table", "json"):
            ended = server.run("db", "restored", "--audit", str(export), "--output", output)
            assert ended.returncode == 2, ended.stderr
            assert canary.found_in(ended.stdout + ended.stderr) == []


def test_an_uncaught_error_is_one_fixed_sentence(canary: Canary) -> None:
    canary.said.clear()
    _break_everything(canary)
    said = "\n".join(canary.said)
    assert INTERNAL_SENTENCE in said
    for leak in ("asyncpg", "does not exist", "relation", "column", "Traceback", "select", "postgresql://"):
        assert leak not in said


def test_a_method_that_broke_works_again_once_the_cause_is_gone(canary: Canary) -> None:
    with psycopg.connect(canary.running.dsn, autocommit=True) as database:
        database.execute("alter table scopes rename to elsewhere")
        path = TOKEN_SERVICE + "ListScopes"
        with pytest.raises(grpc.RpcError) as caught:
            canary.admin.send(path, b"")
        assert isinstance(caught.value, grpc.Call)
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, INTERNAL_SENTENCE)
        database.execute("alter table elsewhere rename to scopes")
        assert canary.admin.list_scopes(pb.ListScopesRequest()).scopes


def test_no_value_of_the_domain_shows_a_secret() -> None:
    keyring = Keyring.generate()
    token = new_token(new_token_id(4_000_000_000_000))
    record = TokenRecord(
        token_id=token.token_id,
        pepper_version=1,
        digest=keyring.digest(token.text),
        subject="x",
        audiences=("*",),
        scopes=(),
        grants=(),
        created_at=datetime.now(UTC),
        expires_at=datetime.now(UTC),
    )
    order = RevokeOrder(token, Selector(), "", cascade=False)
    values = [token, keyring, record, order, IssuedToken(token, record), BootstrapResult(token.text.decode(), record)]
    secrets = [token.text.decode()[25:58], *(base64.b64encode(pepper).decode() for pepper in keyring.peppers.values())]
    secrets += [repr(pepper)[2:-1] for pepper in keyring.peppers.values()] + [repr(record.digest)[2:-1]]
    for value in values:
        for text in (repr(value), str(value), repr([value]), repr({"it": (value,)})):
            assert not [secret for secret in secrets if secret in text], type(value)
