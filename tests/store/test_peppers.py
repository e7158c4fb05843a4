"""A keyring that is not the one that the tokens were stored with stops the start, and leaves no trace."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tests.store.support import new_token, revocation, stored
from watchword.token import new_token as fresh_token
from watchword_server.answer.errors import PepperUnknownError
from watchword_server.answer.proof import examine
from watchword_server.keyring import Keyring
from watchword_server.rules.verdicts import Reason
from watchword_server.store.database import Database
from watchword_server.store.peppers import PepperMismatchError, check_peppers
from watchword_server.store.postgres import PostgresStore

ONE, OTHER = Keyring.generate(), Keyring.generate()
BOTH = Keyring(2, {1: ONE.peppers[1], 2: OTHER.peppers[1]})
SECOND_ALONE = Keyring(2, {2: OTHER.peppers[1]})


def check_values(keyring: Keyring) -> dict[int, bytes]:
    return {version: keyring.check_value(version) for version in keyring.peppers}


async def test_same_keyring_is_accepted_again_and_again(database: Database) -> None:
    for _ in range(3):
        await check_peppers(database, check_values(ONE))


async def test_other_key_under_a_known_version_is_refused(database: Database) -> None:
    await check_peppers(database, check_values(ONE))
    with pytest.raises(PepperMismatchError, match="pepper version 1 in the keyring is not the key"):
        await check_peppers(database, check_values(OTHER))


async def test_added_version_is_accepted_and_from_then_on_known(database: Database) -> None:
    await check_peppers(database, check_values(ONE))
    await check_peppers(database, check_values(BOTH))
    await check_peppers(database, check_values(ONE))
    with pytest.raises(PepperMismatchError, match="pepper version 2"):
        await check_peppers(database, check_values(Keyring(1, {**ONE.peppers, 2: Keyring.generate().peppers[1]})))


async def test_version_that_live_tokens_need_may_not_be_missing(database: Database, store: PostgresStore) -> None:
    await check_peppers(database, check_values(BOTH))
    token_id = await stored(store, pepper_version=1)
    with pytest.raises(PepperMismatchError, match="live tokens were stored with pepper version 1"):
        await check_peppers(database, check_values(SECOND_ALONE))
    await store.revoke(revocation(token_id=token_id))
    await check_peppers(database, check_values(SECOND_ALONE))


async def test_refused_keyring_leaves_nothing_behind(database: Database, store: PostgresStore) -> None:
    """A mistaken start must not make the right keyring the wrong one."""
    await check_peppers(database, check_values(ONE))
    await stored(store, pepper_version=1)
    mistaken = Keyring(2, {2: Keyring.generate().peppers[1]})
    with pytest.raises(PepperMismatchError):
        await check_peppers(database, check_values(mistaken))
    await check_peppers(database, check_values(BOTH))


async def test_of_two_keyrings_that_start_at_once_one_is_refused(database: Database) -> None:
    for version in range(1, 6):
        outcomes = await asyncio.gather(
            *(check_peppers(database, {version: Keyring.generate().check_value(1)}) for _ in range(2)),
            return_exceptions=True,
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType", "PepperMismatchError"]


async def test_message_shows_no_key(database: Database) -> None:
    await check_peppers(database, check_values(ONE))
    with pytest.raises(PepperMismatchError) as caught:
        await check_peppers(database, check_values(OTHER))
    shown = repr(caught.value) + str(caught.value)
    assert not any(secret.hex() in shown or repr(secret) in shown for secret in check_values(OTHER).values())


async def test_row_of_an_unknown_pepper_version_is_unavailable_and_not_inactive(store: PostgresStore) -> None:
    """Inactive would be believed and perhaps kept; the token may be good."""
    made = new_token("caller", pepper_version=2)
    presented = fresh_token(made.record.token_id)
    digest = BOTH.digest(presented.text)
    await store.issue(dataclasses.replace(made, record=made.record._replace(digest=digest)))
    snapshot = await store.read([presented.token_id])
    with pytest.raises(PepperUnknownError) as caught:
        examine(ONE, presented, snapshot, verifier="orders", required=[])
    assert caught.value.metadata == {"pepper_version": "2"}
    assert examine(BOTH, presented, snapshot, verifier="orders", required=[]).reason is Reason.ACTIVE
