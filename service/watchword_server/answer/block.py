"""Blocking a subject: all it has ends, and nothing is issued for it."""

from __future__ import annotations

from watchword_server.answer.errors import FieldsInvalidError, GrantMissingError
from watchword_server.rules.fields import Faults
from watchword_server.rules.grants import covers_subject
from watchword_server.rules.tokens import TokenRecord
from watchword_server.store.contract import Actor, Revocation, Revoked, Selector, Store


class Blocking:
    """Blocks subjects and lets them go. How far the revocation is known is `answer/propagate.py`'s."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def block(self, caller: TokenRecord, actor: Actor, subject: str, reason: str, *, force: bool) -> Revoked:
        """Blocks a subject, and ends its tokens and those it owns, within the caller's grants.

        Raises FieldsInvalidError, GrantMissingError, LastAdministratorError, and the store's errors.
        """
        faults = Faults()
        faults.name("subject", subject)
        faults.text("reason", reason)
        _allowed(caller, subject, faults)
        return await self._store.revoke(
            Revocation(
                Selector(subject=subject),
                actor,
                reason,
                cascade=False,
                within=caller.grants,
                force=force,
                block=True,
            )
        )

    async def unblock(self, caller: TokenRecord, actor: Actor, subject: str) -> bool:
        """Lets tokens be issued for a subject again; whether it was blocked.

        Raises FieldsInvalidError, GrantMissingError, and the store's errors.
        """
        faults = Faults()
        faults.name("subject", subject)
        _allowed(caller, subject, faults)
        return await self._store.unblock(subject, actor)


def _allowed(caller: TokenRecord, subject: str, faults: Faults) -> None:
    if faults.found:
        raise FieldsInvalidError(faults.found)
    if not covers_subject(caller.grants, subject):
        raise GrantMissingError(f"no grant of the calling token covers the subject '{subject}'", {"subject": subject})
