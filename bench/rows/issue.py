"""issue_vs_floor: durable tokens per second beside what PostgreSQL does when nothing but the row is inserted.

The floor is pgbench, one row a transaction, into a copy of the `tokens` table: same columns, indexes and partitions, in
the same database, with ids that fall into the same partition, and values taken from a token that the load issued. Issue
also writes its audit event and checks its caller's token; the floor does neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from psycopg import sql

from bench.authority import Authority
from bench.cost import Cost, calls_for
from bench.figures import Figure, Goal, MeasurementError, figure_of_rounds, interleaved
from bench.load import Caller, LoadResult, run_load
from bench.population import issue_request
from bench.postgres import Postgres, run_pgbench
from bench.stage import Stage

# In a schema of its own, so that the server never sees it.
_COPY_TABLE = """
do $$
declare part record;
begin
  drop schema if exists bench_floor cascade;
  create schema bench_floor;
  create table bench_floor.tokens (like public.tokens including all) partition by range (id);
  for part in
    select c.relname, pg_get_expr(c.relpartbound, c.oid) as bounds
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'public.tokens'::regclass
  loop
    execute format('create table bench_floor.%I partition of bench_floor.tokens %s', part.relname, part.bounds);
  end loop;
end
$$
"""


@dataclass(frozen=True, slots=True)
class Inserts:
    """The floor's table and script."""

    postgres: Postgres
    database: str
    script: str

    def rate(self, clients: int, transactions_each: int) -> float:
        before = self._count()
        rate = run_pgbench(
            self.postgres, self.database, self.script, clients=clients, transactions_each=transactions_each
        )
        if self._count() - before != clients * transactions_each:
            raise MeasurementError("pgbench did not insert what it says")
        return rate

    def _count(self) -> int:
        ((count,),) = self.postgres.query("select count(*) from bench_floor.tokens", self.database)
        return int(count)


def _sample(postgres: Postgres, database: str) -> dict[str, Any]:
    with postgres.connect(database) as connection:
        cursor = connection.execute("select * from tokens where name = 'load' limit 1")
        row = cursor.fetchone()
        assert row is not None
        assert cursor.description is not None
        return dict(zip((column.name for column in cursor.description), row, strict=True))


def prepare_inserts(postgres: Postgres, database: str) -> Inserts:
    """Makes the copy of the table, and the script from a token as Issue stored it."""
    postgres.query(_COPY_TABLE, database)
    names = list(_sample(postgres, database))
    with postgres.connect(database) as connection:
        ((literals,),) = connection.execute(
            sql.SQL("select array[{}] from tokens where name = 'load' limit 1").format(
                sql.SQL(", ").join(sql.SQL("quote_nullable({})").format(sql.Identifier(name)) for name in names)
            )
        ).fetchall()
        values = dict(zip(names, literals, strict=True))
        # Like a token's id: the first 48 bits are the end of its life in milliseconds, the rest is random.
        values["id"] = f"uuidv7(({values['expires_at']})::timestamptz - now())"
        statement = sql.SQL("insert into bench_floor.tokens ({}) values ({});").format(
            sql.SQL(", ").join(map(sql.Identifier, names)),
            sql.SQL(", ").join(sql.SQL(values[name]) for name in names),
        )
        return Inserts(postgres, database, statement.as_string(connection))


def _live_tokens(postgres: Postgres, database: str) -> int:
    ((count,),) = postgres.query("select count(*) from tokens", database)
    return int(count)


def _require_durable(postgres: Postgres, database: str) -> None:
    settings = postgres.query(
        "select name, setting from pg_settings where name in ('fsync', 'synchronous_commit', 'full_page_writes')",
        database,
    )
    for name, setting in settings:
        if setting != "on":
            raise MeasurementError(f"{name} is {setting}: neither side would be durable")


def issue_load(authority: Authority, database: str, callers: list[Caller], each: int, streams: int) -> LoadResult:
    """Raises MeasurementError unless each Issue left one token in the table."""
    before = _live_tokens(authority.postgres, database)
    result = run_load(authority.target("Issue"), callers, calls_each=each, streams=streams)
    stored = _live_tokens(authority.postgres, database) - before
    if stored != result.calls:
        raise MeasurementError(f"sent {result.calls} Issues, and {stored} tokens were stored")
    return result


def measure(stage: Stage) -> list[Figure]:
    """Durable Issue/s on native / single-row pgbench inserts per second."""
    plan, loaded = stage.plan, stage.loaded("native")
    authority, postgres = loaded.authority, loaded.authority.postgres
    database = postgres.watchword_database()
    _require_durable(postgres, database)
    inserts = prepare_inserts(postgres, database)
    callers = [
        Caller(issue_request(f"issued-{n}", v.subject).SerializeToString(), loaded.population.issuer_secret)
        for n, v in enumerate(loaded.population.verifiers)
    ]

    def run(each: int) -> LoadResult:
        return issue_load(authority, database, callers, each, plan.streams)

    issues_each = calls_for(plan.seconds, plan.processes, run)
    inserts_each = max(5, int(inserts.rate(plan.in_flight, 5) * plan.seconds / plan.in_flight))

    def issue(_: int) -> Cost:
        server_before, postgres_before = authority.cpu_ns(), postgres.cpu_ns()
        result = run(issues_each)
        server_ns, postgres_ns = authority.cpu_ns() - server_before, postgres.cpu_ns() - postgres_before
        return Cost(server_ns / 1000 / result.calls, postgres_ns / 1000 / result.calls, result.rate)

    pairs = interleaved(plan.rounds, lambda _: inserts.rate(plan.in_flight, inserts_each), issue)
    baseline = {
        "inserts_per_second": median(floor for floor, _ in pairs),
        "issues_per_second": median(cost.rate for _, cost in pairs),
        "issue_server_us": median(cost.server_us for _, cost in pairs),
        "issue_postgres_us": median(cost.postgres_us for _, cost in pairs),
        "pgbench_clients": plan.in_flight,
        **plan.shape(),
    }
    ratios = [cost.rate / floor for floor, cost in pairs]
    return [figure_of_rounds("issue_vs_floor", ratios, "ratio", Goal(">=", 0.8), baseline)]
