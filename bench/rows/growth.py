"""growth_10m, bytes_per_token: what very many tokens cost a check, and the disk.

Tokens drawn at random among all are presented through BatchValidate, because a load that presents a few over and over
would find them in the processor's caches.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from math import inf
from statistics import median
from typing import Final, LiteralString

import grpc

from bench.authority import Authority, data_folder, require_only_active, serving
from bench.cost import Cost
from bench.figures import Figure, Goal, figure_of_rounds, interleaved
from bench.grown import Grown, grow, holder_of, room
from bench.population import SCOPE, Population, populate
from bench.postgres import Postgres
from bench.stage import Plan, Stage
from watchword.v1 import token_service_pb2 as pb
from watchword.v1 import token_service_pb2_grpc as pb_grpc

_IN_FLIGHT: Final = 4
_CALL_SECONDS_MAX: Final = 60
_USAGE_INTERVAL_SECONDS: Final = 3_600
"""Use is counted, and stored afterwards: that goes by how many tokens are used, which has a row of its own."""
_EVENTS_MAX: Final = 100_000
_EVENTS: Final = """
insert into audit_events (id, occurred_at, action, actor, actor_token_id, address, token_id, details)
select uuidv7(), occurred_at, action, actor, actor_token_id, address, gen_random_uuid(), details
from (select * from audit_events where action = 'issue' limit 1) as one, generate_series(1, %s)
"""
_REQUESTS: Final = """
insert into issue_requests (caller_subject, request_id, token_id)
select 'issuer', gen_random_uuid()::text, gen_random_uuid() from generate_series(1, %s)
"""


@dataclass(frozen=True, slots=True)
class Side:
    """A server and the tokens in its database."""

    authority: Authority
    population: Population
    grown: Grown

    def cost(self, plan: Plan) -> Cost:
        """CPU per token, presented for about as long as a round takes. Raises MeasurementError unless all are good."""
        return self._cost(_at_random(self.grown.tokens, plan.batch_size), plan.seconds)

    def warm(self, plan: Plan) -> None:
        """Presents every token once: what PostgreSQL keeps in memory while it runs, it has to read after its start."""
        self._cost(_each_once(self.grown.tokens, plan.batch_size), inf)

    def _cost(self, batches: Iterator[pb.BatchValidateRequest], seconds_max: float) -> Cost:
        verdicts, server, postgres = (
            self.authority.verdicts(),
            self.authority.cpu_ns(),
            self.authority.postgres.cpu_ns(),
        )
        began, count = time.monotonic(), 0
        metadata = (("authorization", f"Bearer {self.population.verifiers[0].secret}"),)
        with grpc.insecure_channel(f"127.0.0.1:{self.authority.port}") as channel:
            stub = pb_grpc.TokenServiceStub(channel)
            while not count or time.monotonic() - began < seconds_max:
                calls = [
                    stub.BatchValidate.future(batch, metadata=metadata, timeout=_CALL_SECONDS_MAX)
                    for batch in islice(batches, _IN_FLIGHT)
                ]
                if not calls:
                    break
                count += sum(len(call.result().responses) for call in calls)
        seconds = time.monotonic() - began
        server_ns, postgres_ns = self.authority.cpu_ns() - server, self.authority.postgres.cpu_ns() - postgres
        require_only_active(verdicts, self.authority.verdicts(), count)
        return Cost(server_ns / 1000 / count, postgres_ns / 1000 / count, count / seconds)


def _at_random(tokens: Sequence[str], size: int) -> Iterator[pb.BatchValidateRequest]:
    while True:
        yield _batch(random.sample(tokens, min(size, len(tokens))))


def _each_once(tokens: Sequence[str], size: int) -> Iterator[pb.BatchValidateRequest]:
    for first in range(0, len(tokens), size):
        yield _batch(tokens[first : first + size])


def _batch(tokens: Sequence[str]) -> pb.BatchValidateRequest:
    return pb.BatchValidateRequest(
        requests=[pb.ValidateRequest(token=token, required_scopes=[SCOPE]) for token in tokens]
    )


def measure(stage: Stage) -> list[Figure]:
    """CPU per token of checks among many tokens / among few, server and PostgreSQL, native; and what the many take."""
    plan = stage.plan
    with ExitStack() as stack:
        many, few = (_side(stack, plan, count) for count in (plan.tokens_many, plan.tokens_few))
        for side in (many, few):
            side.warm(plan)
        pairs = interleaved(plan.rounds, lambda _: many.cost(plan), lambda _: few.cost(plan))
        taken = _bytes(many, plan)
    baseline = {
        "many": plan.tokens_many,
        "few": plan.tokens_few,
        "many_server_us": median(one.server_us for one, _ in pairs),
        "many_postgres_us": median(one.postgres_us for one, _ in pairs),
        "few_server_us": median(one.server_us for _, one in pairs),
        "few_postgres_us": median(one.postgres_us for _, one in pairs),
        "tokens_per_second": median(one.rate for one, _ in pairs),
        "presentable": len(many.grown.tokens),
        "tokens_per_batch": plan.batch_size,
    }
    ratios = [one.total_us / other.total_us for one, other in pairs]
    return [figure_of_rounds("growth_10m", ratios, "ratio", Goal("<=", 1.15), baseline), taken]


def _side(stack: ExitStack, plan: Plan, count: int) -> Side:
    folder = stack.enter_context(data_folder())
    with serving(folder, "native") as authority:
        population = populate(authority, verifiers=1, tokens_each=1)
        grown = grow(authority, count, plan.presentable, holder_of(population))
    # Anew: PostgreSQL is given memory for what it holds when it starts.
    authority = stack.enter_context(serving(folder, "native", usage_interval_seconds=_USAGE_INTERVAL_SECONDS))
    return Side(authority, population, grown)


def _bytes(side: Side, plan: Plan) -> Figure:
    postgres = side.authority.postgres
    database = postgres.watchword_database()
    tokens = room(postgres, database, "tokens")
    # Most tokens leave an event behind, and some a request id for a day: beside the figure, not in it.
    events, requests = (
        _grown_by(postgres, database, table, statement, min(plan.tokens_many, _EVENTS_MAX))
        for table, statement in (("audit_events", _EVENTS), ("issue_requests", _REQUESTS))
    )
    baseline = {
        "tokens": tokens.rows,
        "heap_bytes": tokens.heap / tokens.rows,
        "index_bytes": tokens.indexes / tokens.rows,
        "bytes_per_event": events,
        "bytes_per_request_id": requests,
    }
    return figure_of_rounds("bytes_per_token", [tokens.bytes_per_row], "bytes", Goal("<=", 340), baseline)


def _grown_by(postgres: Postgres, database: str, table: LiteralString, statement: str, rows: int) -> float:
    before = room(postgres, database, table)
    with postgres.connect(database) as connection:
        connection.execute(statement.encode(), [rows])
    after = room(postgres, database, table)
    return (after.size_bytes - before.size_bytes) / (after.rows - before.rows)
