"""`python -m bench.rotations`: so many rotations by clients whose tokens renew themselves, and not one failed call.

A server, a service that checks from memory, and clients of both stacks in four processes: two with a file of its own
for each client, and two that share theirs. Their tokens live for seconds. Prints one JSON object; exits 1 if a call
failed, or the rotations were not reached in time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc
from google.protobuf.duration_pb2 import Duration

from bench.authority import data_folder, serving
from bench.conversation import Child
from bench.figures import MeasurementError
from bench.population import SCOPE
from bench.renewers import Stack, Work, open_renewers, renewers
from bench.service import protected_service
from watchword.v1 import token_service_pb2 as pb
from watchword.v1.token_service_pb2_grpc import TokenServiceStub

_CALL_SECONDS_MAX: Final = 30
_LOOK_SECONDS: Final = 0.5
_FIRST_LIFE_SECONDS: Final = 15.0
SERVICE: Final = "orders"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    clients: int
    rotations: int
    calls: int
    failed_calls: int
    seconds: float
    rotations_per_second: float
    failures: dict[str, int] = field(default_factory=dict)
    """Failed calls by status and reason."""
    errors: dict[str, int] = field(default_factory=dict)
    """Clients whose last attempt to renew had failed at the end, by the cause."""


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.rotations", description="Rotations under load.")
    parser.add_argument("--rotations", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--ttl", type=float, default=6.0, help="seconds that each token lives")
    parser.add_argument("--grace", type=float, default=4.0, help="seconds that a rotated one lives on")
    parser.add_argument("--pause", type=float, default=0.2, help="seconds between two calls of a client")
    parser.add_argument("--seconds", type=float, default=3_600.0, help="gives up after so long")
    return parser.parse_args(argv)


class Administrator:
    """Whoever issues what is needed."""

    def __init__(self, channel: grpc.Channel, token: str) -> None:
        self._stub = TokenServiceStub(channel)
        self._metadata = (("authorization", f"Bearer {token}"),)

    def register(self) -> None:
        scope = pb.ScopeRegistration(name=SCOPE, description="Read orders")
        request = pb.RegisterScopesRequest(scopes=[scope])
        self._stub.RegisterScopes(request, metadata=self._metadata, timeout=_CALL_SECONDS_MAX)

    def issue(self, request: pb.IssueRequest) -> str:
        return self._stub.Issue(request, metadata=self._metadata, timeout=_CALL_SECONDS_MAX).secret

    def service_token(self) -> str:
        return self.issue(pb.IssueRequest(subject=SERVICE, audiences=["watchword"], scopes=["watchword.validate"]))

    def keep_tokens(self, folder: Path, count: int, ttl_seconds: float) -> list[str]:
        """The files of so many tokens for the service, each of which can renew itself."""
        files = [folder / f"{number}.token" for number in range(count)]
        ttl = Duration(seconds=round(ttl_seconds))
        for number, file in enumerate(files):
            request = pb.IssueRequest(
                subject=f"client-{number}", audiences=["watchword", SERVICE], scopes=[SCOPE], ttl=ttl
            )
            file.write_text(self.issue(request))
        return [str(file) for file in files]


@contextmanager
def clients_at_work(administrator: Administrator, folder: Path, count: int, work: Work) -> Iterator[list[Child]]:
    """Four processes of clients, two in five of them with a sibling in another process that has the same file."""
    shared = count // 5
    own = count - 2 * shared
    stacks: list[Stack] = ["aio", "sync", "aio", "sync"]
    with ExitStack() as stack:
        processes = [stack.enter_context(renewers(one)) for one in stacks]
        # The first life leaves time to begin; they ask for the short ones themselves.
        files = administrator.keep_tokens(folder, own + shared, max(work.ttl_seconds, _FIRST_LIFE_SECONDS))
        for process, share in zip(
            processes, (files[: own // 2], files[own // 2 : own], files[own:], files[own:]), strict=True
        ):
            open_renewers(process, share, work)
        yield processes


def run_until(processes: Sequence[Child], rotations: int, seconds_max: float) -> Result:
    """Waits for so many rotations. The clients work on."""
    began = time.monotonic()
    while True:
        told = [process.ask("status") for process in processes]
        seconds = time.monotonic() - began
        count = sum(one["rotations"] for one in told)
        if count >= rotations or seconds > seconds_max:
            break
        time.sleep(_LOOK_SECONDS)
    failures = _sum(one["failures"] for one in told)
    return Result(
        clients=sum(one["clients"] for one in told),
        rotations=count,
        calls=sum(one["calls"] for one in told),
        failed_calls=sum(failures.values()),
        seconds=round(seconds, 1),
        rotations_per_second=round(count / seconds, 2),
        failures=failures,
        errors=_sum(one["errors"] for one in told),
    )


def _sum(counts: Iterable[dict[str, Any]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def main(argv: Sequence[str]) -> int:
    arguments = _arguments(argv)
    with ExitStack() as stack:
        authority = stack.enter_context(serving(stack.enter_context(data_folder()), "native"))
        address = f"127.0.0.1:{authority.port}"
        channel = stack.enter_context(grpc.insecure_channel(address))
        administrator = Administrator(channel, authority.admin_token())
        administrator.register()
        service = stack.enter_context(protected_service(authority.port, administrator.service_token()))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="ww")))
        work = Work(address, f"127.0.0.1:{service.ports['cached']}", arguments.ttl, arguments.grace, arguments.pause)
        processes = stack.enter_context(clients_at_work(administrator, folder, arguments.clients, work))
        result = run_until(processes, arguments.rotations, arguments.seconds)
    print(json.dumps(asdict(result)))
    return 0 if result.failed_calls == 0 and result.rotations >= arguments.rotations else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except MeasurementError as error:
        sys.exit(str(error))
