"""What `watchword revoke --dry-run` shows: the tokens that would end, each below the one it hangs on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from watchword_server.cli.connect import Session
from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import Column, instant_and_distance, message_json
from watchword_server.cli.show_token import ends_at

if TYPE_CHECKING:
    from watchword.v1.token_service_pb2 import RevokeResponse, Token

_NOTHING_DONE: Final = "Nothing was done: this is what the same command without --dry-run would end."


def show_preview(session: Session, response: RevokeResponse) -> None:
    """Writes the tree, and says that nothing was done. Raises CommandError if it has no token in it."""
    output = session.output
    if output.is_json:
        output.json(message_json(response))
    elif response.would_revoke:
        now = datetime.now(UTC)
        output.table(
            (Column("token_id", whole=True), Column("why"), Column("subject"), Column("name"), Column("ends_at")),
            (
                (
                    "  " * depth + token.token_id,
                    why,
                    token.subject,
                    token.name,
                    instant_and_distance(ends_at(token), now),
                )
                for depth, why, token in tree(response.would_revoke)
            ),
        )
    if not response.revoked_count:
        raise nothing_matched("Nothing was done.")
    more = response.revoked_count - len(response.would_revoke)
    shown = f"{response.revoked_count} token{'s' * (response.revoked_count != 1)}"
    out_of_reach = f", {response.out_of_reach_count} out of your reach" if response.out_of_reach_count else ""
    output.note(f"{shown}{f', {more} of them not shown' if more > 0 else ''}{out_of_reach}. {_NOTHING_DONE}")


def nothing_matched(more: str) -> CommandError:
    """For a revocation without tokens to end."""
    return CommandError(
        f"nothing matched: no token that was not already revoked. {more}",
        "Look it up: watchword tokens list --all-states (with --subject or --issued-by).",
        ExitCode.NOTHING_MATCHED,
        "NOTHING_MATCHED",
    )


def tree(tokens: Sequence[Token]) -> Iterator[tuple[int, str, Token]]:
    """Each token once, with its depth below those that were named, and why it is among them; parents first."""
    by_id = {token.token_id: token for token in tokens}
    heads = {token.lineage_id or token.token_id: token.token_id for token in tokens if token.successor_id not in by_id}
    below: dict[str, list[tuple[str, Token]]] = {}
    for token in tokens:
        parent, why = _parent(token, by_id, heads)
        below.setdefault(parent, []).append((why, token))
    seen: set[str] = set()
    # What a server sends may go in circles; the second pass shows what hangs on nothing that was shown.
    for begin in ("", *by_id):
        waiting = [(0, why, token) for why, token in reversed(below.get(begin, ())) if token.token_id not in seen]
        while waiting:
            depth, why, token = waiting.pop()
            if token.token_id in seen:
                continue
            seen.add(token.token_id)
            yield depth, why, token
            waiting += [(depth + 1, of, one) for of, one in reversed(below.get(token.token_id, ()))]


def _parent(token: Token, by_id: Mapping[str, Token], heads: Mapping[str, str]) -> tuple[str, str]:
    """The token among these that it hangs on, and how; empty for one that was named itself."""
    if token.predecessor_id in by_id:
        return token.predecessor_id, "successor"
    if token.issued_by in by_id:
        return token.issued_by, "tied" if token.tied_to else "issued"
    head = heads.get(token.tied_to, "") if token.tied_to else ""
    return (head, "tied") if head and head != token.token_id else ("", "named")
