"""Another way to make digests can be added while the rows there are keep theirs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from watchword.token import ParsedToken
from watchword_server.answer.errors import PepperUnknownError
from watchword_server.answer.mint import Mint
from watchword_server.answer.proof import examine
from watchword_server.keyring import SCHEMES, Keyring
from watchword_server.rules.tokens import TokenRecord
from watchword_server.rules.verdicts import Reason
from watchword_server.store.contract import Position, Snapshot

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PEPPER = bytes(range(32))
HMAC_SHA3_256 = 2


def hmac_sha3_256(key: bytes) -> Callable[[bytes], bytes]:
    return lambda token: hmac.new(key, token, hashlib.sha3_256).digest()


OLD = Keyring(1, {1: PEPPER})
NEW = Keyring(1, {1: PEPPER}, HMAC_SHA3_256, {**SCHEMES, HMAC_SHA3_256: hmac_sha3_256})


def issued(keyring: Keyring) -> tuple[ParsedToken, TokenRecord]:
    minted = Mint(keyring, token_prefix="ww_", idle_slack=timedelta()).token(NOW + timedelta(days=1))
    record = TokenRecord(
        token_id=minted.token.token_id,
        pepper_version=minted.pepper_version,
        digest=minted.digest,
        subject="orders",
        audiences=("billing",),
        scopes=(),
        grants=(),
        created_at=NOW - timedelta(days=1),
        expires_at=minted.expires_at,
        digest_scheme=minted.digest_scheme,
    )
    return minted.token, record


def reason(keyring: Keyring, token: ParsedToken, record: TokenRecord) -> Reason:
    snapshot = Snapshot({token.token_id: record}, Position(UUID(int=1), 0), NOW)
    return examine(keyring, token, snapshot, verifier="billing", required=()).reason


def test_rows_of_two_schemes_are_good_side_by_side() -> None:
    for keyring, scheme in ((OLD, 1), (NEW, HMAC_SHA3_256)):
        token, record = issued(keyring)
        assert record.digest_scheme == scheme
        assert reason(NEW, token, record) is Reason.ACTIVE


def test_a_digest_is_good_by_its_own_scheme_only() -> None:
    for keyring, other in ((OLD, HMAC_SHA3_256), (NEW, 1)):
        token, record = issued(keyring)
        assert reason(NEW, token, record._replace(digest_scheme=other)) is Reason.SECRET_MISMATCH


def test_a_scheme_that_this_process_does_not_know_is_not_judged() -> None:
    token, record = issued(NEW)
    with pytest.raises(PepperUnknownError):
        reason(OLD, token, record)
