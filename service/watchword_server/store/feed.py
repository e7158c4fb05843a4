"""One page of the feed out of the rows that one statement read: contiguous, or none of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from watchword_server.store.fleet_contract import Change, FeedPage


def page_of(rows: Sequence[Any], after: int | None, mark: UUID | None) -> FeedPage:
    """What queries/fleet_feed.sql read for whoever stands at `after` with `mark`."""
    feed = rows[0]
    last_mark = rows[-1]["page_mark"] or feed["mark_asked"]
    changes = [Change(row["number"], row["token_ids"], row["everything"]) for row in rows if row["number"] is not None]
    continues = (
        after is not None
        and mark is not None
        and feed["pruned_to"] <= after <= feed["position"]
        and feed["mark_asked"] == mark
        and _contiguous(changes, after, feed["position"])
    )
    return FeedPage(
        epoch=feed["epoch"],
        number=feed["position"],
        mark=last_mark if continues else feed["mark"],
        changes=changes if continues else (),
        continues=continues,
        pruned=after is not None and after < feed["pruned_to"],
        settled=feed["epoch_settled"],
        longest_lease_seconds=feed["longest_lease_seconds"],
    )


def _contiguous(changes: Sequence[Change], after: int, number: int) -> bool:
    """Whether they begin right after, leave out nothing, and are not missing where there must be some."""
    if not changes:
        return after == number
    return all(change.number == after + count for count, change in enumerate(changes, 1))
