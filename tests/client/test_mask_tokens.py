"""No whole token gets through the log filter, however it came into the record."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from watchword import MaskTokens
from watchword.testing import FakeAuthority
from watchword.token import PREFIX_DEFAULT

TOKEN = FakeAuthority().issue("alice")
SHOWN = TOKEN[: len(PREFIX_DEFAULT) + 22] + "[masked]"


@contextmanager
def logged(
    prefix: str = PREFIX_DEFAULT, form: str = "%(message)s"
) -> Iterator[tuple[logging.Logger, Callable[[], str]]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(form))
    handler.addFilter(MaskTokens(prefix))
    logger = logging.Logger("test")
    logger.addHandler(handler)
    yield logger, stream.getvalue
    handler.close()


class Keep(logging.Filter):
    def __init__(self, seen: list[logging.LogRecord]) -> None:
        super().__init__()
        self.seen = seen

    def filter(self, record: logging.LogRecord) -> bool:
        self.seen.append(record)
        return True


class Quoting:
    def __repr__(self) -> str:
        return f"<request {TOKEN}>"


@pytest.mark.parametrize(
    ("message", "arguments", "expected"),
    [
        (f"got {TOKEN}!", (), f"got {SHOWN}!"),
        ("got %s!", (TOKEN,), f"got {SHOWN}!"),
        ("got %(token)s!", ({"token": TOKEN},), f"got {SHOWN}!"),
        ("got %r", (Quoting(),), f"got <request {SHOWN}>"),
        ("%s%s", (TOKEN, TOKEN), SHOWN * 2),
        ("%s%s", (TOKEN[:30], TOKEN[30:]), SHOWN),
        ("%d of %s", (1, "two"), "1 of two"),
        ("100 %", (), "100 %"),
    ],
)
def test_messages_and_arguments(message: str, arguments: tuple[object, ...], expected: str) -> None:
    with logged() as (logger, written):
        logger.error(message, *arguments)
        assert written() == expected + "\n"


def test_arguments_that_do_not_fit_are_not_printed_unmasked(capsys: pytest.CaptureFixture[str]) -> None:
    with logged() as (logger, written):
        logger.error("%d", TOKEN)
        assert SHOWN in written()
        assert TOKEN not in written() + "".join(capsys.readouterr())


def test_exceptions_and_stacks() -> None:
    with logged() as (logger, written):
        try:
            try:
                raise KeyError(TOKEN)
            except KeyError as error:
                raise ValueError("inner") from error
        except ValueError:
            logger.exception("failed", stack_info=True)
        assert TOKEN not in written()
        assert SHOWN in written()
        assert "ValueError: inner" in written()


def test_an_exception_without_a_token_stays_an_object() -> None:
    seen: list[logging.LogRecord] = []
    with logged() as (logger, _):
        logger.handlers[0].addFilter(Keep(seen))
        try:
            raise ValueError("plain")
        except ValueError:
            logger.exception("failed %s", "so")
    assert seen[0].exc_info is not None
    assert seen[0].args == ("so",)


def test_a_masked_record_holds_the_token_nowhere() -> None:
    seen: list[logging.LogRecord] = []
    with logged(form="%(message)s %(request)s") as (logger, written):
        logger.handlers[0].addFilter(Keep(seen))
        logger.error("%s", TOKEN, extra={"request": {"token": TOKEN}, "count": 1})
        assert TOKEN not in written()
    assert TOKEN not in repr(vars(seen[0]))
    assert vars(seen[0])["count"] == 1


def test_another_prefix() -> None:
    other = FakeAuthority(token_prefix="acme_").issue("alice")
    with logged("acme_") as (logger, written):
        logger.error(other)
        assert written() == f"{other[:27]}[masked]\n"


def test_the_public_half_alone_is_left_as_it_is() -> None:
    with logged() as (logger, written):
        logger.error("token %s ended", TOKEN[3:25])
        assert written() == f"token {TOKEN[3:25]} ended\n"
