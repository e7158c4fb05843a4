"""bulk_revocations_per_second: many tokens ended by one call, until nothing accepts any of them."""

from __future__ import annotations

import time
from statistics import median
from typing import Final

import grpc

from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds
from bench.fleet import Fleet, id_of
from bench.stage import Stage
from bench.watchers import Watching, watching
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import token_service_pb2_grpc as pb_grpc

_ROUNDS_MAX: Final = 3
_IN_FLIGHT_MAX: Final = 64
_BY_ID_SHARE: Final = 100
"""Of the tokens ended in one call, one in so many is ended by a call of its own beside it, for comparison."""
_COPIES: Final = """
insert into tokens ({columns})
select {values} from tokens, generate_series(1, {count}) where subject = '{subject}'
"""


def _issue_copies(fleet: Fleet, subject: str, count: int) -> str:
    """So many live tokens of a subject, of which one was issued and the others are copies of its row; that one."""
    postgres = fleet.replicas[0].postgres
    database = postgres.watchword_database()
    [token] = fleet.issue(1, subject)
    with postgres.connect(database) as connection:
        cursor = connection.execute("select * from tokens limit 0")
        assert cursor.description is not None
        names = [column.name for column in cursor.description]
        # Like a token's id: the first 48 bits are the end of its life in milliseconds, the rest is random.
        values = ["uuidv7(expires_at - now())" if name == "id" else name for name in names]
        statement = _COPIES.format(columns=", ".join(names), values=", ".join(values), count=count - 1, subject=subject)
        connection.execute(statement.encode())
    return token


def _by_subject(fleet: Fleet, watchers: Watching, subject: str, count: int) -> float:
    token = _issue_copies(fleet, subject, count)
    watchers.learn([token])
    seconds, reply = fleet.revoke(pb.RevokeRequest(subject=subject))
    if reply.revoked_count != count or watchers.accepting([token]):
        raise MeasurementError(f"{reply.revoked_count} of {count} tokens were revoked")
    return count / seconds


def _by_id(fleet: Fleet, count: int) -> float:
    ids = [id_of(token) for token in fleet.issue(count)]
    stub = pb_grpc.TokenServiceStub(fleet.channels[0])
    metadata = (("authorization", f"Bearer {fleet.admin}"),)
    began = time.perf_counter()
    for first in range(0, count, _IN_FLIGHT_MAX):
        calls: list[grpc.Future[pb.RevokeResponse]] = [
            stub.Revoke.future(pb.RevokeRequest(token_id=one), metadata=metadata, timeout=60)
            for one in ids[first : first + _IN_FLIGHT_MAX]
        ]
        for call in calls:
            reply = call.result()
            if (reply.revoked_count, reply.propagation) != (1, pb.PROPAGATION_COMPLETE):
                raise MeasurementError("a token was not revoked everywhere")
    return count / (time.perf_counter() - began)


def measure(stage: Stage) -> list[Figure]:
    """Tokens of one subject / time from one Revoke until it is COMPLETE on two replicas with a verifier each."""
    plan, fleet = stage.plan, stage.fleet()
    rounds, singly = [], []
    with watching(fleet.ports, fleet.verifier.secret, count=len(fleet.ports)) as watchers:
        for number in range(min(plan.rounds, _ROUNDS_MAX)):
            rounds.append(_by_subject(fleet, watchers, f"crowd-{time.time_ns()}-{number}", plan.bulk_tokens))
            singly.append(_by_id(fleet, max(2, plan.bulk_tokens // _BY_ID_SHARE)))
    baseline = {
        "tokens": plan.bulk_tokens,
        "by_id_per_second": median(singly),
        "by_id_in_flight": _IN_FLIGHT_MAX,
        "replicas": len(fleet.replicas),
        "verifiers": len(fleet.ports),
    }
    return [figure_of_rounds("bulk_revocations_per_second", rounds, "tokens/s", Goal(">=", 5000), baseline)]
