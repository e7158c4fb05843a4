"""After a restore: nobody goes on with what they knew, and what was revoked since the backup is revoked again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from tests.store.support import live, new_token, position, read_one, revocation, stored
from watchword_server.store import restored as module
from watchword_server.store.contract import StoreUnavailableError
from watchword_server.store.database import Database
from watchword_server.store.event_contract import EventQuery
from watchword_server.store.fleet import PostgresFleet
from watchword_server.store.postgres import PostgresStore
from watchword_server.store.restored import Loss, restored


async def test_tokens_revoked_since_the_backup_are_revoked_again(
    database: Database, store: PostgresStore, plain: psycopg.Connection
) -> None:
    one, two, before, other = [await stored(store) for _ in range(4)]
    await store.revoke(revocation(token_id=before))
    was = await position(store)
    unknown = uuid4()
    done = await restored(database, [(one, "LEAKED"), (unknown, ""), (two, "RETIRED"), (before, "x"), (one, "later")])
    assert (done.count_ended, done.count_unknown) == (2, 1)
    rows = (await store.read([one, two, before])).rows
    assert [rows[token_id].revoke_reason for token_id in (one, two, before)] == ["LEAKED", "RETIRED", "LEAKED"]
    assert await live(store, one, two, before, other) == {other}
    now = await position(store)
    assert (now.epoch, now.number) == (done.epoch, was.number + 1)
    assert now.epoch != was.epoch
    assert plain.execute("select everything from positions order by number desc limit 1").fetchone() == (True,)
    again = await restored(database, [(one, "LEAKED"), (two, "RETIRED")])
    assert (again.count_ended, again.count_unknown) == (0, 0)
    assert again.epoch != done.epoch


async def test_a_restore_is_recorded_with_each_end(database: Database, store: PostgresStore) -> None:
    token_id = await stored(store)
    await restored(database, [(token_id, "LEAKED"), (uuid4(), "")])
    [deed] = await store.events(EventQuery(action="restored"))
    assert deed.details == {"count": "1", "unknown": "1", "narrowed": "0", "blocked": "0"}
    [end] = await store.events(EventQuery(action="revoke", token_id=token_id))
    assert end.details == {"reason": "LEAKED", "by_event": str(deed.event_id)}


async def test_what_tokens_had_lost_they_lose_again(database: Database, store: PostgresStore) -> None:
    narrowed, rotated, same = [await stored(store, scopes=["orders.read", "orders.write"]) for _ in range(3)]
    sooner = (await read_one(store, narrowed)).expires_at - timedelta(hours=1)
    losses = [
        Loss(narrowed, ("orders.write",)),
        Loss(narrowed, ("orders.admin",), sooner),
        Loss(narrowed, (), sooner + timedelta(minutes=1)),
        Loss(rotated, expires_at=sooner),
        Loss(same, ("billing.read",), sooner + timedelta(days=9)),
        Loss(uuid4(), ("orders.read",)),
    ]
    done = await restored(database, [], losses=losses)
    assert done.count_narrowed == 2
    left = await read_one(store, narrowed)
    assert (list(left.scopes), left.expires_at) == (["orders.read"], sooner)
    assert (await read_one(store, rotated)).expires_at == sooner
    assert (await restored(database, [], losses=losses)).count_narrowed == 0
    # Each again in the log: after a restore of what is here now, they say what was lost.
    events = await store.events(EventQuery(action="narrow", token_id=narrowed))
    assert [event.details["expires_at"] for event in events] == [sooner.isoformat()]


async def test_subjects_are_blocked_again(database: Database, store: PostgresStore) -> None:
    await store.revoke(revocation(subject="ada", block=True))
    done = await restored(database, [], blocked={"ada": "later", "bob": "LEAKED"})
    assert done.count_blocked == 1
    assert [(one.subject, one.reason) for one in await store.blocked(limit=9, after="")] == [
        ("ada", "LEAKED"),
        ("bob", "LEAKED"),
    ]
    again, _ = await store.events(EventQuery(action="block_subject"))
    assert (again.details["subject"], again.actor.subject) == ("bob", "restored")


async def test_the_new_epoch_is_not_settled_and_no_reader_goes_on_from_before(database: Database) -> None:
    fleet = PostgresFleet(database)
    epoch = await fleet.epoch()
    before = await fleet.feed(None, None)
    done = await restored(database, [])
    page = await fleet.feed(before.number, before.mark)
    assert (page.epoch, page.settled) == (done.epoch, False)
    assert await fleet.epoch() == done.epoch != epoch
    await fleet.close()


async def test_more_than_fit_a_statement_and_from_an_asynchronous_source(
    database: Database, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AT_A_TIME", 2)
    tokens = [await stored(store) for _ in range(5)]

    async def export() -> AsyncIterator[tuple[UUID, str]]:
        for token_id in tokens:
            yield token_id, "LEAKED"

    assert (await restored(database, export())).count_ended == 5
    assert await live(store, *tokens) == set()


async def test_an_export_that_breaks_off_changes_nothing(database: Database, store: PostgresStore) -> None:
    token_id, was = await stored(store), await position(store)

    async def export() -> AsyncIterator[tuple[UUID, str]]:
        yield token_id, "LEAKED"
        raise ValueError("no audit export")

    with pytest.raises(ValueError, match="no audit export"):
        await restored(database, export())
    assert await live(store, token_id) == {token_id}
    assert await position(store) == was


async def test_a_database_out_of_reach_is_unavailable(ready_dsn: str, plain: psycopg.Connection) -> None:
    database = await Database.open(ready_dsn, pool_size_max=1)
    plain.execute(f'alter database "{plain.info.dbname}" set default_transaction_read_only = on')
    with pytest.raises(StoreUnavailableError):
        await restored(database, [(new_token().record.token_id, "")])
    await database.close()
