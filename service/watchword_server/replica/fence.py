"""What keeps a server that lost touch from answering: rule 1 of docs/protocol.md, for every read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from watchword_server.store.contract import Reads, Snapshot, StoreUnavailableError


class LeaseMissingError(StoreUnavailableError):
    """This replica may not use what it read: its own lease has lapsed, or the answer is older than what it told to
    have applied."""


class Fence(Protocol):
    """What a read is judged by."""

    @property
    def told(self) -> int:
        """The highest position that this replica may have told to have applied."""
        ...

    def may_judge(self, epoch: UUID) -> bool:
        """Whether this is the epoch and the replica's own lease is live, by the clock as it is now."""
        ...


class FencedStore:
    """Reads that are used only under the replica's own live lease.

    What matters of `applied` is what others may have been told: they return COMPLETE by that. It is compared as it was
    when the read was sent, since what is told meanwhile was applied after this call began.
    """

    def __init__(self, store: Reads, fence: Fence) -> None:
        self._read = store.read
        self._fence = fence

    async def read(self, token_ids: Sequence[UUID]) -> Snapshot:
        """See the contract. Raises LeaseMissingError after a second try."""
        fence = self._fence
        for _ in range(2):
            told = fence.told
            snapshot = await self._read(token_ids)
            position = snapshot.position
            # After the read: a pause before it must be seen (test_a_read_is_judged_by_the_lease_after_it).
            if position.number >= told and fence.may_judge(position.epoch):
                return snapshot
        raise LeaseMissingError("no live lease, or a read behind what was applied")
