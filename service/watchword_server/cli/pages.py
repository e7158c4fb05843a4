"""Long lists: follow the server's page tokens until the limit or the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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


def pages(ask: Callable[[int, str], R], entries: Callable[[R], _Entries], limit: int, page_token: str) -> Iterator[R]:
    """Asks for pages by (size, page token), one after the other, with `limit` entries at most in all of them together.

    The last one's next_page_token goes on from there, and is empty at the end.
    """
    seen = {page_token}
    while True:
        page = ask(min(limit, PAGE_SIZE_MAX), page_token)
        yield page
        limit -= len(entries(page))
        page_token = page.next_page_token
        if not page_token or limit <= 0:
            return
        if page_token in seen:
            raise CommandError(
                "the server gave the same page twice", "Report it; a smaller --limit may get by.", ExitCode.INTERNAL
            )
        seen.add(page_token)


def collect(ask: Callable[[int, str], R], entries: Callable[[R], _Entries], limit: int, page_token: str) -> R:
    """The same pages put together in the first one."""
    asked = pages(ask, entries, limit, page_token)
    whole = next(asked)
    for page in asked:
        entries(whole).extend(entries(page))
        whole.next_page_token = page.next_page_token
    return whole


def note_more(output: Output, next_page_token: str) -> None:
    """Says that the list goes on, if it does."""
    if next_page_token:
        output.note(f"There are more: a larger --limit, or --page-token {next_page_token}")
