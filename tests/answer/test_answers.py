"""The use cases on a real store: who is let in, what they may give, and what they may end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest

from watchword.token import ParsedToken, expires_at_ms, new_token, new_token_id
from watchword_server.answer.callers import authenticate
from watchword_server.answer.errors import (
    CallerUnknownError,
    FieldsInvalidError,
    GrantMissingError,
    RefusalError,
    RequestIdUsedError,
    ScopeMissingError,
    ScopeOwnedError,
)
from watchword_server.answer.issue import IssuedToken, IssueOrder, Issuing
from watchword_server.answer.mint import Mint
from watchword_server.answer.register import Registering
from watchword_server.answer.revoke import RevokeOrder, Revoking
from watchword_server.keyring import Keyring
from watchword_server.rules.tokens import Grant, TokenRecord
from watchword_server.rules.verdicts import Evidence
from watchword_server.store.contract import Actor, Selector, Snapshot
from watchword_server.store.database import Database
from watchword_server.store.partitions import ensure_partitions
from watchword_server.store.postgres import PostgresStore

TTL_DEFAULT, TTL_MAX = timedelta(days=7), timedelta(days=30)
EVERYTHING = Grant(("*", "watchword.*"), ("*",), ("*", "watchword"))
ACTOR = Actor("test", None, "test")


class Authority:
    """The use cases, put together as the server does."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.keyring = Keyring.generate()
        mint = Mint(self.keyring, token_prefix="ww_", idle_slack=timedelta())
        self.issuing = Issuing(store, mint, ttl_default=TTL_DEFAULT, ttl_max=TTL_MAX)
        self.revoking = Revoking(store, self.keyring)
        self.registering = Registering(store)

    async def unasked(
        self,
        subject: str = "admin",
        *,
        scopes: tuple[str, ...] = ("watchword.*",),
        audiences: tuple[str, ...] = ("watchword",),
        grants: tuple[Grant, ...] = (EVERYTHING,),
    ) -> IssuedToken:
        """A token that nobody had to give."""
        order = IssueOrder(subject, audiences, scopes, grants)
        return await self.issuing.issue_unasked(order, await self.now(), ACTOR)

    async def issue(self, by: IssuedToken, order: IssueOrder) -> IssuedToken:
        return await self.issuing.issue(by.record, ACTOR, order, await self.now())

    async def snapshot(self, *tokens: ParsedToken) -> Snapshot:
        return await self.store.read([token.token_id for token in tokens])

    async def now(self) -> datetime:
        return (await self.store.read([new_token_id(0)])).now

    def enter(self, token: ParsedToken, snapshot: Snapshot, *required: str) -> TokenRecord:
        return authenticate(self.keyring, token, snapshot, required=required)


@pytest.fixture
async def authority(dsn: str) -> AsyncIterator[Authority]:
    database = await Database.open(dsn, pool_size_max=4)
    await ensure_partitions(database, ttl_max=TTL_MAX, days=30)
    store = PostgresStore(database)
    yield Authority(store)
    await store.close()
    await database.close()


def forged(token: ParsedToken) -> ParsedToken:
    """The same id with a secret of somebody's invention."""
    return new_token(token.token_id, "ww_")


async def test_caller_is_who_its_token_says(authority: Authority) -> None:
    admin = await authority.unasked()
    snapshot = await authority.snapshot(admin.token)
    assert authority.enter(admin.token, snapshot, "watchword.issue") == snapshot.rows[admin.token.token_id]


async def test_token_for_another_audience_is_refused(authority: Authority) -> None:
    """A service cannot replay to Watchword what its callers sent it."""
    for audiences in (("orders",), ("*",), ("*", "orders")):
        other = await authority.unasked(audiences=audiences)
        with pytest.raises(CallerUnknownError):
            authority.enter(other.token, await authority.snapshot(other.token), "watchword.issue")


async def test_wrong_secret_and_unknown_id_look_alike(authority: Authority) -> None:
    admin = await authority.unasked()
    unknown = new_token(new_token_id(0), "ww_")
    snapshot = await authority.snapshot(admin.token, unknown)
    refusals: list[RefusalError] = []
    for token in (forged(admin.token), unknown):
        with pytest.raises(CallerUnknownError) as caught:
            authority.enter(token, snapshot)
        refusals.append(caught.value)
    assert refusals[0].reason == refusals[1].reason == "TOKEN_INACTIVE"
    assert refusals[0].message == refusals[1].message


async def test_acceptance_in_a_shared_snapshot_is_for_that_whole_token_and_those_scopes_alone(
    authority: Authority,
) -> None:
    reader = await authority.unasked(scopes=("watchword.read",))
    snapshot = await authority.snapshot(reader.token)
    assert authority.enter(reader.token, snapshot)
    assert authority.enter(reader.token, snapshot, "watchword.read")
    with pytest.raises(ScopeMissingError):
        authority.enter(reader.token, snapshot, "watchword.issue")
    with pytest.raises(CallerUnknownError):
        authority.enter(forged(reader.token), snapshot)
    await authority.revoking.revoke(reader.record, ACTOR, RevokeOrder(reader.token, Selector()), snapshot)
    with pytest.raises(CallerUnknownError):
        authority.enter(reader.token, await authority.snapshot(reader.token))


async def test_issued_record_is_the_stored_one_and_ends_with_its_id(authority: Authority) -> None:
    admin = await authority.unasked()
    order = IssueOrder("caller", ("orders",), ttl=timedelta(hours=1), metadata={"team": "red"})
    issued = await authority.issue(admin, order)
    row = (await authority.snapshot(issued.token)).rows[issued.token.token_id]
    assert row.created_at == issued.record.created_at
    assert row.expires_at == issued.record.expires_at
    assert int(row.expires_at.timestamp() * 1000) == expires_at_ms(row.token_id)
    assert row.digest == authority.keyring.digest(issued.token.text)
    assert row.issued_by == admin.token.token_id
    assert issued.token.text.decode()[25:] not in repr(issued)


@pytest.mark.parametrize(
    ("ttl", "allowed"),
    [
        (timedelta(microseconds=999_999), False),
        (timedelta(seconds=1), True),
        (TTL_MAX, True),
        (TTL_MAX + timedelta(microseconds=1), False),
        (-timedelta(seconds=1), False),
        (timedelta(), False),
    ],
)
async def test_life_lies_within_its_limits(authority: Authority, ttl: timedelta, allowed: bool) -> None:
    admin = await authority.unasked()
    if allowed:
        assert await authority.issue(admin, IssueOrder("caller", ("orders",), ttl=ttl))
        return
    with pytest.raises(FieldsInvalidError) as caught:
        await authority.issue(admin, IssueOrder("caller", ("orders",), ttl=ttl))
    assert [path for path, _ in caught.value.faults] == ["ttl"]


async def test_every_token_ends_by_default(authority: Authority) -> None:
    admin = await authority.unasked()
    issued = await authority.issue(admin, IssueOrder("caller", ("orders",)))
    left = issued.record.expires_at - await authority.now()
    assert timedelta() < left <= TTL_DEFAULT


@pytest.mark.parametrize(
    "order",
    [
        IssueOrder("caller", ("billing",)),
        IssueOrder("caller", ("watchword",)),
        IssueOrder("caller", ("*",)),
        IssueOrder("admin", ("orders",)),
        IssueOrder("caller", ("orders",), ("watchword.read",)),
        IssueOrder("caller", ("orders",), ("*",)),
        IssueOrder("caller", ("orders",), grants=(EVERYTHING,)),
        IssueOrder("caller", ("orders",), grants=(Grant(("orders.*",), ("*",), ("orders",)),)),
    ],
)
async def test_nobody_gives_what_they_do_not_hold(authority: Authority, order: IssueOrder) -> None:
    limited = await authority.unasked("ci", grants=(Grant(("orders.*",), ("caller",), ("orders",)),))
    assert await authority.issue(limited, IssueOrder("caller", ("orders",)))
    with pytest.raises(GrantMissingError):
        await authority.issue(limited, order)


async def test_unknown_scope_is_refused_until_it_is_registered(authority: Authority) -> None:
    admin = await authority.unasked()
    order = IssueOrder("caller", ("orders",), ("watchword.read", "orders.raed"))
    with pytest.raises(FieldsInvalidError) as caught:
        await authority.issue(admin, order)
    assert [path for path, _ in caught.value.faults] == ["scopes[1]"]
    assert await authority.registering.register(admin.record, ACTOR, [("orders.raed", "")]) == 1
    assert (await authority.issue(admin, order)).record.scopes == ("watchword.read", "orders.raed")


async def test_request_id_answers_with_the_id_and_never_the_secret(authority: Authority) -> None:
    admin = await authority.unasked()
    order = IssueOrder("caller", ("orders",), request_id="once")
    issued = await authority.issue(admin, order)
    with pytest.raises(RequestIdUsedError) as caught:
        await authority.issue(admin, order)
    text = issued.token.text.decode()
    assert caught.value.metadata == {"token_id": text[3:25]}
    assert text[25:] not in str(caught.value) + repr(caught.value)


async def test_issuer_revoked_after_it_was_authenticated_issues_nothing(authority: Authority) -> None:
    admin = await authority.unasked()
    snapshot = await authority.snapshot(admin.token)
    await authority.revoking.revoke(admin.record, ACTOR, RevokeOrder(admin.token, Selector(), force=True), snapshot)
    with pytest.raises(CallerUnknownError) as caught:
        await authority.issue(admin, IssueOrder("caller", ("orders",)))
    assert caught.value.reason == "TOKEN_INACTIVE"


async def test_whoever_presents_a_token_may_end_it_and_a_guess_ends_nothing(authority: Authority) -> None:
    holder = await authority.unasked("holder", scopes=(), grants=())
    victim = await authority.unasked("victim")
    snapshot = await authority.snapshot(victim.token)
    guess = RevokeOrder(forged(victim.token), Selector())
    assert (await authority.revoking.revoke(holder.record, ACTOR, guess, snapshot)).count == 0
    presented = RevokeOrder(victim.token, Selector(), force=True)
    assert (await authority.revoking.revoke(holder.record, ACTOR, presented, snapshot)).count == 1


async def test_token_by_id_is_ended_only_within_the_callers_grants(authority: Authority) -> None:
    limited = await authority.unasked("ci", grants=(Grant(("orders.*",), ("caller",), ("orders",)),))
    mine = await authority.unasked("caller", scopes=(), audiences=("orders",), grants=())
    other = await authority.unasked("other", scopes=(), audiences=("orders",), grants=())
    snapshot = await authority.snapshot(mine.token, other.token)
    order = RevokeOrder(None, Selector(token_id=other.token.token_id))
    with pytest.raises(GrantMissingError):
        await authority.revoking.revoke(limited.record, ACTOR, order, snapshot)
    order = RevokeOrder(None, Selector(token_id=mine.token.token_id))
    for expected in (1, 0):
        assert (await authority.revoking.revoke(limited.record, ACTOR, order, snapshot)).count == expected
    unknown = RevokeOrder(None, Selector(token_id=new_token_id(0)))
    assert (await authority.revoking.revoke(limited.record, ACTOR, unknown, snapshot)).count == 0


async def test_scope_is_registered_within_grants_once_and_by_its_owner(authority: Authority) -> None:
    orders = await authority.unasked("orders", grants=(Grant(("orders.*",), ("orders",), ("orders",)),))
    admin = await authority.unasked()
    register = authority.registering.register
    orders_actor = Actor("orders", orders.token.token_id, "test")
    assert await register(orders.record, orders_actor, [("orders.read", ""), ("orders.write", "")]) == 2
    with pytest.raises(GrantMissingError):
        await register(orders.record, orders_actor, [("orders.new", ""), ("billing.read", "")])
    with pytest.raises(FieldsInvalidError):
        await register(orders.record, orders_actor, [("orders.new", ""), ("orders.new", "")])
    with pytest.raises(FieldsInvalidError):
        await register(orders.record, orders_actor, [])
    with pytest.raises(ScopeOwnedError) as caught:
        await register(admin.record, Actor("admin", None, "test"), [("orders.read", "mine")])
    assert caught.value.metadata == {"scope": "orders.read", "owner": "orders"}
    assert "orders.new" not in await authority.store.scope_names()


async def test_what_nobody_issues_is_tied_to_nothing(authority: Authority) -> None:
    order = IssueOrder("admin", ("watchword",), tied=True)
    with pytest.raises(FieldsInvalidError) as caught:
        await authority.issuing.issue_unasked(order, await authority.now(), ACTOR)
    assert [path for path, _ in caught.value.faults] == ["tied"]


async def test_a_bound_caller_is_judged_by_each_calls_own_evidence(authority: Authority) -> None:
    """Also where two calls share a snapshot, and where nobody says where a call comes from."""
    order = IssueOrder("admin", ("watchword",), ("watchword.read",), allowed_networks=("10.0.0.0/8",))
    bound = await authority.issuing.issue_unasked(order, await authority.now(), ACTOR)
    snapshot = await authority.snapshot(bound.token)

    def enter(address: str) -> TokenRecord:
        return authenticate(authority.keyring, bound.token, snapshot, required=(), evidence=lambda: Evidence(address))

    for _ in range(2):
        assert enter("10.1.2.3").token_id == bound.token.token_id
        for address in ("192.0.2.1", ""):
            with pytest.raises(CallerUnknownError):
                enter(address)
        with pytest.raises(CallerUnknownError):
            authenticate(authority.keyring, bound.token, snapshot, required=())


async def test_nobody_asks_where_an_unbound_caller_is(authority: Authority) -> None:
    admin = await authority.unasked()

    def never() -> Evidence:
        raise AssertionError

    authenticate(authority.keyring, admin.token, await authority.snapshot(admin.token), required=(), evidence=never)
