"""A token's life by the commands, as processes against a real server on a real database."""

from __future__ import annotations

import json
import re
import shlex
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.conftest import running_watchword
from tests.databases import Databases
from tests.servers import WATCHWORD, ServerProcess

END_SECONDS_MAX = 60
GRANT = ("--grant", "scopes=cart.*,subjects=*,audiences=*")


@pytest.fixture(scope="module")
def server(postgres: Databases) -> Iterator[ServerProcess]:
    with postgres.fresh() as dsn, running_watchword(dsn) as made:
        made.server.environment["WATCHWORD_TOKEN"] = made.admin_token
        assert made.server.run("scopes", "register", "cart.read:See carts", "cart.write:Fill carts").returncode == 0
        yield made.server


def answer(ended: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert ended.returncode == code, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def issue(server: ServerProcess, subject: str, *arguments: str) -> tuple[str, str]:
    """A token for the audience `shop`: its secret and its id."""
    issued = answer(server.run("issue", "--subject", subject, "--audience", "shop", "-o", "json", *arguments))
    return issued["secret"], issued["token"]["token_id"]


def own(server: ServerProcess, secret: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command with a token of one's own."""
    return server.run(*arguments, "--token-file", "/dev/stdin", stdin=secret)


def is_good(server: ServerProcess, secret: str, *arguments: str) -> bool:
    code = server.run("validate", "--as", "shop", *arguments, stdin=secret).returncode
    assert code in (0, 1)
    return code == 0


def reason(server: ServerProcess, secret: str, *arguments: str) -> str:
    explained = server.run("validate", "--as", "shop", "-o", "json", *arguments, stdin=secret)
    return str(json.loads(explained.stdout)["explanation"]["reason"]).removeprefix("VERDICT_REASON_")


def test_holder_sees_rotates_and_revokes_itself_without_any_scope(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "token"
    made = server.run(
        *("issue", "--subject", "self", "--audience", "shop", "--scope", "cart.read", "--ttl", "10d"),
        *("--renewable", "--secret-file", str(file), "-o", "json"),
    )
    first = answer(made)["token"]["token_id"]
    old = file.read_text().strip()
    mine = ("--token-file", str(file))
    assert answer(server.run("whoami", "-o", "json", *mine))["token"]["token_id"] == first
    rotated = answer(server.run("rotate", "--in-place", "-o", "json", *mine))
    new = file.read_text().strip()
    assert (rotated["secret"], stat.S_IMODE(file.stat().st_mode)) == ("", 0o600)
    assert rotated["token"]["predecessor_id"] == first == rotated["token"]["lineage_id"]
    assert is_good(server, old)
    assert is_good(server, new)
    # Who comes second is told which one came first.
    late = own(server, old, "rotate")
    assert (late.returncode, late.stdout) == (6, "")
    assert rotated["token"]["token_id"] in late.stderr
    shown = server.run("tokens", "show", first).stdout
    assert rotated["token"]["token_id"] in shown
    # The old one by its secret: the successor lives, and is named.
    ended = server.run("revoke", "--reason", "LEAKED", stdin=old)
    assert ended.returncode == 0, ended.stderr
    assert f"Its successor {rotated['token']['token_id']} was left alone" in ended.stderr
    assert is_good(server, new)
    assert server.run("revoke", "--self", *mine).returncode == 0
    assert not is_good(server, new)
    assert server.run("whoami", *mine).returncode == 5


def test_rotation_that_ends_the_old_one_now_is_dead_everywhere(server: ServerProcess) -> None:
    old, token_id = issue(server, "now", "--scope", "cart.read")
    ended = server.run("rotate", token_id, "--end-now", "--quiet")
    assert ended.returncode == 0, ended.stderr
    assert is_good(server, ended.stdout.strip())
    assert reason(server, old) == "ROTATED"
    explained = server.run("validate", "--as", "shop", stdin=old).stdout
    assert "Its successor is " in explained
    again = server.run("rotate", token_id)
    assert again.returncode in (4, 6)
    # Whoever has a leaked one ended takes what came after it too.
    assert server.run("revoke", "--id", token_id, "--cascade", "--yes").returncode == 0
    assert not is_good(server, ended.stdout.strip())


def test_cascade_is_shown_before_it_is_done(server: ServerProcess) -> None:
    parent, parent_id = issue(server, "tree", "--renewable", "--scope", "watchword.issue", *GRANT)
    children = [
        answer(own(server, parent, "issue", "--subject", "leaf", "--audience", "shop", "-o", "json", *more))
        for more in ((), ("--tied",))
    ]
    ids = {parent_id, *(child["token"]["token_id"] for child in children)}
    shown = server.run("revoke", "--id", parent_id, "--cascade", "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert all(token_id in shown.stdout for token_id in ids)
    assert "Nothing was done" in shown.stderr
    assert all(is_good(server, child["secret"]) for child in children)
    # What is tied goes with it in any case.
    alone = answer(server.run("revoke", "--id", parent_id, "--dry-run", "-o", "json"))
    assert {one["token_id"] for one in alone["would_revoke"]} == {parent_id, children[1]["token"]["token_id"]}
    assert answer(server.run("revoke", "--id", parent_id, "-o", "json"))["revoked_count"] == 2
    assert [is_good(server, child["secret"]) for child in children] == [True, False]


def test_narrowed_token_has_lost_what_was_taken(server: ServerProcess) -> None:
    secret, token_id = issue(server, "narrow", "--scope", "cart.read", "--scope", "cart.write")
    unused = server.run("tokens", "scopes", token_id, "--unused")
    assert (unused.returncode, "cart.write" in unused.stdout) == (1, True)
    ended = server.run(
        "tokens", "narrow", token_id, "--remove-scope", "cart.write", "--ttl", "1h", "--reason", "unused"
    )
    assert ended.returncode == 0, ended.stderr
    assert "gone everywhere" in ended.stdout
    assert is_good(server, secret, "--scope", "cart.read")
    assert not is_good(server, secret, "--scope", "cart.write")
    again = server.run("tokens", "narrow", token_id, "--remove-scope", "cart.write")
    assert again.returncode == 2
    longer = server.run("tokens", "narrow", token_id, "--ttl", "2h")
    assert longer.returncode == 2


def test_blocked_subject_is_issued_nothing_until_it_is_unblocked(server: ServerProcess) -> None:
    _, service_id = issue(server, "mallory")
    issue(server, "script", "--kind", "personal", "--owner", "mallory")
    listed = answer(server.run("tokens", "list", "--owner", "mallory", "--kind", "personal", "-o", "json"))
    assert [one["subject"] for one in listed["tokens"]] == ["script"]
    ended = answer(server.run("subjects", "block", "mallory", "--reason", "LEFT", "--yes", "-o", "json"))
    assert ended["revoked_count"] == 2
    refused = server.run("issue", "--subject", "mallory", "--audience", "shop")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert "watchword subjects unblock" in refused.stderr
    assert server.run("rotate", service_id).returncode in (4, 5)
    assert "LEFT" in server.run("subjects", "list").stdout
    assert server.run("subjects", "unblock", "mallory").returncode == 0
    issue(server, "mallory")


def test_bound_token_is_good_from_its_networks_and_with_its_certificate(server: ServerProcess, tmp_path: Path) -> None:
    for name in ("right", "wrong"):
        trustme.CA().issue_cert(name).cert_chain_pems[0].write_to_path(tmp_path / name)
    certificate = ("--certificate", str(tmp_path / "right"))
    secret, _ = issue(server, "bound", "--network", "10.1.0.0/16", "--network", "2001:db8::/32", *certificate)
    assert reason(server, secret, "--client-ip", "10.1.2.3", *certificate) == "ACTIVE"
    assert reason(server, secret, "--client-ip", "2001:db8::1", *certificate) == "ACTIVE"
    assert reason(server, secret, "--client-ip", "10.2.0.1", *certificate) == "NETWORK_MISMATCH"
    assert reason(server, secret, *certificate) == "NETWORK_MISMATCH"
    assert reason(server, secret, "--client-ip", "10.1.2.3") == "CERTIFICATE_MISMATCH"
    other = ("--certificate", str(tmp_path / "wrong"))
    assert reason(server, secret, "--client-ip", "10.1.2.3", *other) == "CERTIFICATE_MISMATCH"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--network", "10.1.2.3/16"), "allowed_networks[0]"),
        (("--kind", "session"), "idle_timeout"),
        (("--kind", "session", "--idle", "2h", "--ttl", "1h"), "idle_timeout"),
        (("--kind", "personal"), "owner"),
    ],
)
def test_refused_fields_are_named(server: ServerProcess, arguments: tuple[str, ...], says: str) -> None:
    refused = server.run("issue", "--subject", "x", "--audience", "shop", *arguments)
    assert (refused.returncode, says in refused.stderr) == (2, True), refused.stderr


def test_last_administrator_is_left_alone(server: ServerProcess) -> None:
    token_id = answer(server.run("whoami", "-o", "json"))["token"]["token_id"]
    refused = server.run("revoke", "--self")
    assert (refused.returncode, "--force" in refused.stderr) == (6, True), refused.stderr
    assert server.run("revoke", "--id", token_id).returncode == 6
    assert server.run("whoami").returncode == 0


def test_audit_is_followed_exported_and_has_what_was_denied(server: ServerProcess, tmp_path: Path) -> None:
    plain, plain_id = issue(server, "plain", "--renewable")
    process = subprocess.Popen(
        [*WATCHWORD, "audit", "tail", "--follow", "--every", "200ms", "--denied", "-o", "json"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**server.environment, "WATCHWORD_ADDRESS": server.address},
    )
    watchdog = threading.Timer(END_SECONDS_MAX, process.kill)
    watchdog.start()
    try:
        assert own(server, plain, "tokens", "list").returncode == 5
        assert process.stdout is not None
        event: dict[str, Any] = {}
        while event.get("actor_token_id") != plain_id:
            event = json.loads(process.stdout.readline())
        assert (event["action"], event["outcome"], event["actor"]) == ("list_tokens", "SCOPE_MISSING", "plain")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=END_SECONDS_MAX)
        assert (process.returncode, said) == (130, "")
    finally:
        watchdog.cancel()
        process.kill()
        process.wait(END_SECONDS_MAX)
    revoked, revoked_id = issue(server, "export")
    assert server.run("revoke", stdin=revoked).returncode == 0
    file = tmp_path / "audit.jsonl"
    assert server.run("audit", "export", "--file", str(file)).returncode == 0
    events = [json.loads(text) for text in file.read_text().splitlines()]
    assert {"issue", "revoke"} <= {one["action"] for one in events if one["token_id"] == revoked_id}
    for secret in (plain, revoked, server.environment["WATCHWORD_TOKEN"]):
        assert secret[25:58] not in file.read_text() + "".join(server.log)


def test_export_is_what_a_restore_revokes_by(
    server: ServerProcess, postgres: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, _ = issue(server, "restored")
    assert server.run("revoke", stdin=secret).returncode == 0
    exported = server.run("audit", "export")
    assert exported.returncode == 0, exported.stderr
    with postgres.fresh() as other:
        # Another database, as after a restore to before there was anything: it knows none of them.
        monkeypatch.setitem(server.environment, "WATCHWORD_DATABASE_URL", other)
        done = answer(server.run("db", "restored", "--audit", "-", "-o", "json", stdin=exported.stdout))
        assert done["revoked_count"] == 0
        assert done["unknown_count"] >= 1


def test_the_way_out_for_the_last_administrator_is_one(postgres: Databases) -> None:
    """What the refusal says to do is done, and then nothing stands in the way any more."""
    with postgres.fresh() as dsn, running_watchword(dsn) as made:
        made.server.environment["WATCHWORD_TOKEN"] = made.admin_token
        refused = made.server.run("revoke", "--self")
        assert refused.returncode == 6
        advised = re.search(r"watchword (issue .*? --subject NAME)", refused.stderr)
        assert advised is not None, refused.stderr
        issued = made.server.run(*shlex.split(advised[1].replace("NAME", "ada")), "--quiet")
        assert issued.returncode == 0, issued.stderr
        assert made.server.run("revoke", "--self").returncode == 0
        more = shlex.split(advised[1].replace("NAME", "grace"))
        assert own(made.server, issued.stdout.strip(), *more).returncode == 0
