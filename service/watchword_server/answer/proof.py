"""Proving a presented token against its row, then judging it.

A wrong secret for a real id is indistinguishable from an unknown id: the same work is done for both, and the answer is
the same (test_wrong_secret_and_unknown_id_look_alike).
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import Final, Protocol

from watchword.token import ParsedToken
from watchword_server.answer.errors import PepperUnknownError
from watchword_server.rules.tokens import TokenRecord
from watchword_server.rules.verdicts import ENDED, NO_EVIDENCE, Evidence, Verdict, judge, malformed
from watchword_server.store.contract import Snapshot

_NO_DIGEST: Final = bytes(32)


class Digests(Protocol):
    """The keyring, as far as checking needs it."""

    @property
    def current(self) -> int:
        """The version that new tokens are stored with."""
        ...

    @property
    def scheme(self) -> int:
        """How the digests of new tokens are made."""
        ...

    def digest(self, token: bytes) -> bytes:
        """The digest by the current scheme under the current version."""
        ...

    def digest_with(self, version: int, token: bytes, scheme: int) -> bytes | None:
        """The digest by a scheme under a version; None if this process does not have one of them."""
        ...


def proves(digests: Digests, token: ParsedToken, record: TokenRecord | None) -> bool:
    """Whether the presented token is the one the record was made for. Raises PepperUnknownError."""
    if record is None:
        hmac.compare_digest(digests.digest(token.text), _NO_DIGEST)
        return False
    digest = digests.digest_with(record.pepper_version, token.text, record.digest_scheme)
    if digest is None:
        raise PepperUnknownError(record.pepper_version)
    return hmac.compare_digest(digest, record.digest)


def examine(
    digests: Digests,
    token: ParsedToken | None,
    snapshot: Snapshot,
    *,
    verifier: str,
    required: Sequence[str],
    evidence: Evidence | None = NO_EVIDENCE,
) -> Verdict:
    """The verdict on a presented token (None: it was not even well formed), with `evidence` as in `judge`.

    Raises PepperUnknownError.
    """
    if token is None:
        return malformed()
    record = snapshot.rows.get(token.token_id)
    try:
        proved = proves(digests, token, record)
    except PepperUnknownError:
        # What has ended is refused without proof, and its neighbours in a batch get their answers. The record is left
        # out: it may be shown only to whoever proved the secret.
        ended = judge(record, proved=True, verifier=verifier, required=required, now=snapshot.now)
        if ended.reason in ENDED:
            return Verdict(ended.reason)
        raise
    return judge(record, proved=proved, verifier=verifier, required=required, now=snapshot.now, evidence=evidence)
