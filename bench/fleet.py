"""Two servers on one database, and Revoke as its callers use it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc

from bench.authority import Authority, data_folder, serving, serving_beside
from bench.figures import MeasurementError
from bench.population import Population, Verifier, issue_all, issue_request, populate
from watchword.token import ID_LENGTH, PREFIX_DEFAULT
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import token_service_pb2_grpc as pb_grpc

_REVOKE_SECONDS_MAX: Final = 80
_REPORT_SECONDS_MAX: Final = 15.0


def id_of(token: str) -> str:
    """A token's public half."""
    return token[len(PREFIX_DEFAULT) :][:ID_LENGTH]


@dataclass(frozen=True, slots=True)
class Fleet:
    """The servers, and a connection to each."""

    replicas: Sequence[Authority]
    channels: Sequence[grpc.Channel] = field(repr=False)
    admin: str = field(repr=False)
    population: Population = field(repr=False)

    @property
    def verifier(self) -> Verifier:
        """Whom the tokens are for."""
        return self.population.verifiers[0]

    def issue(self, count: int, subject: str = "client") -> list[str]:
        """So many tokens for the verifier."""
        requests = (issue_request(subject, self.verifier.subject) for _ in range(count))
        return list(issue_all(pb_grpc.TokenServiceStub(self.channels[0]), self.population.issuer_secret, requests))

    @property
    def ports(self) -> list[int]:
        return [replica.port for replica in self.replicas]

    def revoke(self, request: pb.RevokeRequest, *, at: int = 0) -> tuple[float, pb.RevokeResponse]:
        """Seconds until the reply, and the reply. Raises MeasurementError unless it is COMPLETE."""
        stub = pb_grpc.TokenServiceStub(self.channels[at % len(self.channels)])
        metadata = (("authorization", f"Bearer {self.admin}"),)
        began = time.perf_counter()
        reply = stub.Revoke(request, metadata=metadata, timeout=_REVOKE_SECONDS_MAX)
        seconds = time.perf_counter() - began
        if reply.propagation != pb.PROPAGATION_COMPLETE:
            raise MeasurementError("a revocation was not complete")
        return seconds, reply

    def wait_until_counted(self, verifiers: int) -> None:
        """Until a Revoke tells of so many verifiers, at all replicas: they are reported once a second."""
        end = time.monotonic() + _REPORT_SECONDS_MAX
        nothing = pb.RevokeRequest(subject="nobody")
        while (counted := self.revoke(nothing)[1].verifiers_count) != verifiers:
            if time.monotonic() > end:
                raise MeasurementError(f"{counted} verifiers are counted, and {verifiers} are there")
            time.sleep(0.2)


@contextmanager
def fleet() -> Iterator[Fleet]:
    """Two servers on a new database."""
    with ExitStack() as stack:
        first = stack.enter_context(serving(stack.enter_context(data_folder()), "native"))
        replicas = [first, stack.enter_context(serving_beside(first, "native"))]
        channels = [stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{one.port}")) for one in replicas]
        population = populate(first, verifiers=1, tokens_each=1)
        yield Fleet(replicas, channels, first.admin_token(), population)
