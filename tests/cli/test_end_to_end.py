"""The commands as processes against a real server on a real database."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.conftest import Watchword, running_watchword
from tests.databases import Databases
from tests.servers import ServerProcess
from watchword_server.keyring import Keyring


@pytest.fixture(scope="module")
def running(postgres: Databases) -> Iterator[Watchword]:
    with postgres.fresh() as dsn, running_watchword(dsn) as made:
        made.server.environment["WATCHWORD_TOKEN"] = made.admin_token
        yield made


@pytest.fixture
def server(running: Watchword) -> ServerProcess:
    return running.server


def issue(server: ServerProcess, subject: str, *arguments: str) -> str:
    """A token for the audience `shop` with the scope `cart.read`; its secret."""
    assert server.run("scopes", "register", "cart.read:See carts", "cart.write:Fill carts").returncode == 0
    issued = server.run("issue", "--subject", subject, "--audience", "shop", "--quiet", *arguments)
    assert issued.returncode == 0, issued.stderr
    assert (issued.stdout.count("\n"), issued.stderr) == (1, "")
    return issued.stdout.strip()


def test_token_lives_and_dies(server: ServerProcess) -> None:
    secret = issue(server, "life", "--scope", "cart.read", "--ttl", "1h", "--metadata", "team=a")
    assert server.run("validate", "--as", "shop", "--scope", "cart.read", stdin=secret).returncode == 0
    assert "audience_mismatch" in server.run("validate", "--as", "till", stdin=secret).stdout
    lacking = server.run("validate", "--as", "shop", "--scope", "cart.write", stdin=secret)
    assert (lacking.returncode, "scope_missing" in lacking.stdout) == (1, True)
    # Not for the administrator's audience: a verifier learns no more than that.
    assert server.run("validate", stdin=secret).stdout == "inactive\n"
    record = json.loads(server.run("tokens", "show", "-o", "json", stdin=secret).stdout)["token"]
    assert (record["subject"], record["scopes"], record["metadata"]) == ("life", ["cart.read"], {"team": "a"})
    revoked = server.run("revoke", "--reason", "RETIRED", "-o", "json", stdin=secret)
    assert json.loads(revoked.stdout)["revoked_count"] == 1
    assert json.loads(revoked.stdout)["propagation"] == "PROPAGATION_COMPLETE"
    assert "revoked" in server.run("validate", "--as", "shop", stdin=secret).stdout
    events = json.loads(server.run("audit", "list", "--id", record["token_id"], "-o", "json").stdout)["events"]
    assert [event["action"] for event in events if event["action"] != "get_token"] == ["revoke", "issue"]
    assert server.run("revoke", "--id", record["token_id"]).returncode == 4


def test_secrets_stay_out_of_every_listing_and_log(server: ServerProcess, running: Watchword) -> None:
    secret = issue(server, "canary", "--scope", "cart.read", "--name", "canary")
    listings = [
        server.run(*command, "-o", form)
        for command in (["tokens", "list", "-a"], ["audit", "list"], ["scopes", "list"])
        for form in ("table", "json")
    ]
    assert all(ended.returncode == 0 for ended in listings)
    written = "".join(ended.stdout + ended.stderr for ended in listings) + "".join(server.log)
    for canary in (secret, running.admin_token):
        assert canary not in written
        assert canary[25:58] not in written


def test_many_are_revoked_by_issuer_with_what_they_issued(server: ServerProcess) -> None:
    grant = "scopes=cart.*,subjects=tree.*,audiences=shop"
    issued = server.run(
        *("issue", "--subject", "tree", "--audience", "watchword", "--scope", "watchword.issue", "-o", "json"),
        *("--grant", grant),
    )
    parent = json.loads(issued.stdout)
    child = server.run(
        *("issue", "--subject", "tree.leaf", "--audience", "shop", "--quiet", "--token-file", "/dev/stdin"),
        stdin=parent["secret"],
    ).stdout.strip()
    assert server.run("validate", "--as", "shop", stdin=child).returncode == 0
    token_id = parent["token"]["token_id"]
    ended = server.run("revoke", "--id", token_id, "--cascade", "--yes", "-o", "json")
    assert json.loads(ended.stdout)["revoked_count"] == 2
    assert server.run("validate", "--as", "shop", stdin=child).returncode == 1


def test_all_that_was_issued_before_is_revoked_but_the_callers_own_token(server: ServerProcess) -> None:
    secret = issue(server, "before", "--scope", "cart.read")
    ended = server.run("revoke", "--all", "--issued-before", "0s", "--reason", "BREAK_IN", "--yes", "-o", "json")
    answer = json.loads(ended.stdout)
    assert (ended.returncode, answer["propagation"]) == (0, "PROPAGATION_COMPLETE"), ended.stderr
    assert answer["revoked_count"] >= 1
    assert answer["replicas_count"] == 1
    assert server.run("validate", "--as", "shop", stdin=secret).returncode == 1
    # The administrator's lives.
    assert server.run("tokens", "list").returncode == 0


def test_servers_are_listed_with_what_they_have_applied(server: ServerProcess) -> None:
    ended = server.run("watchers", "-o", "json")
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    (replica,) = answer["replicas"]
    assert f":{server.pid} " in replica["name"]
    assert answer["watchers"] == []
    assert "asks at every check" in server.run("watchers").stderr


def test_nobody_gives_what_they_do_not_hold(server: ServerProcess) -> None:
    plain = server.run(
        "issue", "--subject", "plain", "--audience", "watchword", "--scope", "watchword.issue", "--quiet"
    ).stdout.strip()
    refused = server.run(
        *("issue", "--subject", "more", "--audience", "shop", "--quiet", "--token-file", "/dev/stdin"), stdin=plain
    )
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "Nobody gives what they do not hold" in refused.stderr


def test_unknown_scope_comes_with_the_nearest_known_one(server: ServerProcess) -> None:
    issue(server, "near")
    refused = server.run("issue", "--subject", "x", "--audience", "shop", "--scope", "cart.raed")
    assert refused.returncode == 2
    assert "cart.read" in refused.stderr


def test_what_is_no_token_is_explained(server: ServerProcess) -> None:
    ended = server.run("validate", "--as", "shop", stdin="nonsense")
    assert (ended.returncode, "malformed" in ended.stdout) == (1, True)


def test_second_administrator_is_refused_while_one_lives(server: ServerProcess) -> None:
    ended = server.run("bootstrap", "--quiet")
    assert (ended.returncode, ended.stdout) == (6, "")
    assert "watchword issue" in ended.stderr


def findings(server: ServerProcess) -> tuple[int, dict[str, str]]:
    ended = server.run("doctor", "-o", "json")
    return ended.returncode, {one["check"]: one["status"] for one in json.loads(ended.stdout)["findings"]}


def test_doctor_finds_a_running_server_in_order(server: ServerProcess) -> None:
    code, found = findings(server)
    # A bootstrapped administrator lives for a day: doctor wants the next one issued.
    assert found.pop("administrators") == "warn"
    assert set(found.values()) == {"ok"}, found
    assert {"database", "clock", "fsync", "replication", "migrations", "keyring", "server"} <= found.keys()
    assert code == 0


def test_doctor_fails_on_the_wrong_keyring(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(server.environment, "WATCHWORD_KEYRING_FILE")
    monkeypatch.setitem(server.environment, "WATCHWORD_KEYRING", Keyring.generate().dump())
    code, found = findings(server)
    assert (code, found["keyring"]) == (1, "fail")


def test_doctor_fails_without_a_database(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(server.environment, "WATCHWORD_DATABASE_URL", "postgresql://u:canary@127.0.0.1:1/none")
    ended = server.run("doctor")
    assert ended.returncode == 1
    assert "FAIL" in ended.stdout
    assert "canary" not in ended.stdout + ended.stderr


def test_schema_is_missing_until_upgraded(
    server: ServerProcess, postgres: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.fresh(migrated=False) as dsn:
        monkeypatch.setitem(server.environment, "WATCHWORD_DATABASE_URL", dsn)
        missing = server.run("db", "status")
        assert (missing.returncode, "watchword db upgrade" in missing.stderr) == (1, True)
        assert findings(server)[0] == 1
        applied = json.loads(server.run("db", "upgrade", "-o", "json").stdout)["applied"]
        assert applied[0] == "0001.initial"
        assert server.run("db", "status").returncode == 0
        shown = json.loads(server.run("db", "status", "-o", "json").stdout)
        assert "scopes" in {table["name"] for table in shown["tables"]}
        assert shown["size_bytes"] == sum(table["size_bytes"] for table in shown["tables"]) > 0
        assert server.run("db", "upgrade").stdout == "up to date\n"


def test_a_restored_database_gets_a_new_epoch_and_says_what_it_leaves_alive(
    server: ServerProcess, postgres: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.fresh() as dsn:
        monkeypatch.setitem(server.environment, "WATCHWORD_DATABASE_URL", dsn)
        epochs = {json.loads(server.run("db", "restored", "-o", "json").stdout)["epoch"] for _ in range(2)}
        assert len(epochs) == 2
        ended = server.run("db", "restored", "--audit", "-", stdin='{"events": [], "next_page_token": "x"}')
        assert (ended.returncode, "The export is a part" in ended.stderr) == (0, True)
        assert "EVERY TOKEN" not in ended.stderr
        assert "EVERY TOKEN" in server.run("db", "restored").stderr
    with postgres.fresh(migrated=False) as dsn:
        monkeypatch.setitem(server.environment, "WATCHWORD_DATABASE_URL", dsn)
        ended = server.run("db", "restored")
        assert ended.returncode == 3
        assert "watchword db upgrade" in ended.stderr


def test_settings_in_doubt_are_named(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(server.environment, "WATCHWORD_POOL_SIZE_MAXX", "9")
    ended = server.run("db", "status")
    assert ended.returncode == 78
    assert "WATCHWORD_POOL_SIZE_MAX?" in ended.stderr
