"""Long lists: follow the server's page tokens until the limit or the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from watchword_server.cli.errors import CommandError, ExitCode
from watchword_server.cli.output import Output

PAGE_SIZE_MAX: Final = 1_000


class _Entries(Protocol):
    def __len__(self) -> int: ...
    def extend(self, values: Any, /) -> None: ...


class _Response(Protocol):
    next_page_token: str


R = TypeVar("R", bound=_Response)


def collect(ask: Callable[[int, str], R], entries: Callable[[R], _Entries], limit: int, page_token: str) -> R:
    """Asks for pages by (size, page token) and puts them together in the first response, `limit` entries at most.

    The result's next_page_token goes on from there, and is empty at the end.
    """
    whole = ask(min(limit, PAGE_SIZE_MAX), page_token)
    seen = {page_token}
    while whole.next_page_token and len(entries(whole)) < limit:
        if whole.next_page_token in seen:
            raise CommandError(
                "the server gave the same page twice", "Report it; a smaller --limit may get by.", ExitCode.INTERNAL
            )
        seen.add(whole.next_page_token)
        page = ask(min(limit - len(entries(whole)), PAGE_SIZE_MAX), whole.next_page_token)
        entries(whole).extend(entries(page))
        whole.next_page_token = page.next_page_token
    return whole


def note_more(output: Output, next_page_token: str) -> None:
    """Says that the list goes on, if it does."""
    if next_page_token:
        output.note(f"There are more: a larger --limit, or --page-token {next_page_token}")
