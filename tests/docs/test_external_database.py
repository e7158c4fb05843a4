"""What docs/operate.md says to type for an external database, typed: roles, grants, administrators, locked out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import conninfo

from tests.databases import Databases
from tests.docs.documents import Block, blocks
from tests.servers import ServerProcess, keyring_file

OPERATE = "docs/operate.md"
EXTERNAL = "Starting with an external database"
PASSWORD = "of-this-test"


def sql(heading: str, at: int = 0) -> str:
    return [block.text for block in _under(heading) if block.language == "sql"][at]


def _under(heading: str) -> list[Block]:
    return [block for block in blocks(OPERATE) if block.heading == heading]


class Deployment:
    """A database with two roles made as the document says, under names of this test's own."""

    def __init__(self, postgres: Databases, folder: Path) -> None:
        self.suffix = uuid4().hex[:8]
        self.superuser = postgres.dsn("postgres")
        keyring = keyring_file(folder)
        self.server = ServerProcess(
            folder,
            {
                "WATCHWORD_DATABASE_URL": self.url("watchword"),
                "WATCHWORD_MIGRATION_DATABASE_URL": self.url("watchword_owner"),
                "WATCHWORD_KEYRING_FILE": str(keyring),
            },
        )

    def named(self, statements: str) -> str:
        """The document's statements about this test's roles and database."""
        renamed = re.sub(r"\bwatchword(_owner)?\b(?!\.)", lambda found: f"{found[0]}_{self.suffix}", statements)
        return renamed.replace("'...'", f"'{PASSWORD}'")

    def url(self, role: str, database: str = "watchword") -> str:
        given = conninfo.conninfo_to_dict(self.superuser)
        host = str(given.get("host", "localhost"))
        at = "" if host.startswith("/") else f"{host}:{given.get('port', 5432)}"
        query = f"?host={host.replace('/', '%2F')}" if host.startswith("/") else ""
        return f"postgresql://{role}_{self.suffix}:{PASSWORD}@{at}/{database}_{self.suffix}{query}"

    def execute(self, url: str, statements: str) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in filter(str.strip, self.named(statements).split(";")):
                connection.execute(statement.encode())

    def clear(self) -> None:
        with psycopg.connect(self.superuser, autocommit=True) as connection:
            connection.execute(f"drop database if exists watchword_{self.suffix} with (force)".encode())
            for role in ("watchword", "watchword_owner"):
                connection.execute(f"drop role if exists {role}_{self.suffix}".encode())


@pytest.fixture
def empty(postgres: Databases, tmp_path: Path) -> Iterator[Deployment]:
    """Roles and a database, and nothing in it yet."""
    with _made(postgres, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def deployment(postgres: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Migrated, granted and served."""
    with _made(postgres, tmp_path_factory.mktemp("external")) as made:
        _run(made, "db", "upgrade")
        made.execute(made.url("watchword_owner"), sql(EXTERNAL, 1))
        with made.server:
            yield made


@contextmanager
def _made(postgres: Databases, folder: Path) -> Iterator[Deployment]:
    made = Deployment(postgres, folder)
    try:
        made.execute(made.superuser, sql(EXTERNAL))
        yield made
    finally:
        made.clear()


@pytest.fixture
def admin(deployment: Deployment) -> str:
    """A new administrator's token, made as by somebody who lost every other."""
    deployment.server.environment.pop("WATCHWORD_TOKEN", None)
    deployment.execute(deployment.url("watchword_owner"), sql("Runbook"))
    token = _run(deployment, "bootstrap", "--quiet").strip()
    deployment.server.environment["WATCHWORD_TOKEN"] = token
    return token


def _run(deployment: Deployment, *arguments: str, stdin: str = "", code: int = 0) -> str:
    ended = deployment.server.run(*arguments, stdin=stdin)
    assert ended.returncode == code, f"{arguments}: {ended.stdout}{ended.stderr}"
    return ended.stdout


@pytest.mark.usefixtures("admin")
def test_the_grants_are_all_that_serving_takes(deployment: Deployment) -> None:
    _run(deployment, "scopes", "register", "orders.read:See orders")
    secret = _run(
        *(deployment, "issue", "--subject", "orders/a", "--audience", "orders", "--scope", "orders.read", "-q")
    )
    assert "orders/a" in _run(deployment, "tokens", "list")
    _run(deployment, "revoke", stdin=secret)
    assert "revoke" in _run(deployment, "audit", "list")
    assert "FAIL" not in _run(deployment, "doctor")
    assert not [line for line in deployment.server.log if "put off" in line]


@pytest.mark.parametrize(
    "forbidden",
    [
        "create table mine (n int)",
        "drop table tokens",
        "delete from tokens",
        "update audit_events set actor = 'nobody'",
        "delete from audit_events",
        "update pepper_checks set version = 2",
    ],
)
def test_the_serving_role_can_neither_change_the_schema_nor_the_audit_log(
    deployment: Deployment, forbidden: str
) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        deployment.execute(deployment.url("watchword"), forbidden)


def test_a_missing_grant_is_named_by_doctor(empty: Deployment) -> None:
    _run(empty, "db", "upgrade")
    before = _run(empty, "doctor", code=1)
    assert "the serving role lacks select, insert, update on tokens; " in before
    assert "select on _yoyo_migrations" in before
    without = "".join(line for line in sql(EXTERNAL, 1).splitlines(keepends=True) if "ensure_partition" not in line)
    empty.execute(empty.url("watchword_owner"), without)
    lacks = "the serving role lacks execute on ensure_partition; execute on drop_partition "
    assert lacks in _run(empty, "doctor", code=1)
    assert "InsufficientPrivilegeError" in empty.server.run("serve").stderr


@pytest.mark.usefixtures("admin")
def test_named_administrators_and_teams_as_described(deployment: Deployment, tmp_path: Path) -> None:
    script = "".join(block.text for block in _under("Administrators")).replace("\\\n", " ")
    commands = [shlex.split(line.partition(">")[0]) for line in script.splitlines()]
    assert [command[1] for command in commands] == ["issue", "revoke", "issue"]
    ada, team = tmp_path / "ada.token", tmp_path / "team"
    ada.write_text(_run(deployment, *commands[0][1:]))
    _run(deployment, *[str(ada) if word == "ada.token" else word for word in commands[1][1:]])
    _run(deployment, "tokens", "list", code=5)
    deployment.server.environment["WATCHWORD_TOKEN"] = ada.read_text().strip()
    team.write_text(_run(deployment, *commands[2][1:]))
    _run(deployment, "scopes", "register", "orders.list:List", "billing.read:See")
    within = ["issue", "--audience", "orders", "--scope", "orders.list", "--token-file", str(team)]
    _run(deployment, *within, "--subject", "orders/worker")
    _run(deployment, *within, "--subject", "billing", code=5)
    _run(deployment, *within, "--subject", "orders/worker", "--scope", "billing.read", code=5)


def test_locked_out_as_described(deployment: Deployment, admin: str) -> None:
    _run(deployment, "bootstrap", "--quiet", code=6)
    deployment.execute(deployment.url("watchword_owner"), sql("Runbook"))
    made = _run(deployment, "bootstrap", "--quiet").strip()
    _run(deployment, "tokens", "list", code=5)
    deployment.server.environment["WATCHWORD_TOKEN"] = made
    _run(deployment, "tokens", "list")
    assert made != admin


def test_an_expired_partition_is_dropped_as_described(deployment: Deployment) -> None:
    lower, upper = "019b76da-a800-0000-0000-000000000000", "019c167f-c800-0000-0000-000000000000"
    owner = deployment.url("watchword_owner")
    deployment.execute(owner, f"select ensure_partition('tokens', 'tokens_20260101', '{lower}', '{upper}')")
    deployment.execute(deployment.url("watchword"), sql("Retention"))
    with psycopg.connect(owner) as connection:
        assert connection.execute("select to_regclass('tokens_20260101')").fetchone() == (None,)
