"""Everything that is logged, by us or by a library, comes out as one masked line in the form that was asked for."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from typing import Literal

import pytest
import structlog

from watchword.token import new_token, new_token_id
from watchword_server.observe.logs import LINE_CHARACTERS_MAX, Logs
from watchword_server.observe.masking import Masker

TOKEN = new_token(new_token_id(2**44)).text.decode()
SECRET = TOKEN[30:]
PASSWORD = "hunter2-canary"
DSN = f"postgresql://app:{PASSWORD}@db/w"

Form = Literal["auto", "json", "console"]


class ShowsEverything:
    def __repr__(self) -> str:
        return f"<request token={TOKEN!r} dsn={DSN!r}>"


def fail() -> None:
    try:
        raise ValueError(f"no {TOKEN}")
    except ValueError as error:
        raise OSError(f"cannot connect to {DSN}") from error


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_canary_is_in_no_log_however_it_was_logged(form: Form) -> None:
    stream = io.StringIO()
    with Logs(form=form, level="debug", masker=Masker(), stream=stream):
        log = logging.getLogger("watchword")
        fields = {"token": TOKEN, "nested": {"dsn": [DSN]}, "shown": ShowsEverything(), TOKEN: 1}
        log.info(f"event {TOKEN}", extra=fields)
        for name in ("grpc._cython.cygrpc", "asyncpg", "asyncio", "embedded"):
            logging.getLogger(name).warning("%s %r", TOKEN, ShowsEverything(), extra={"dsn": DSN})
        try:
            fail()
        except OSError:
            log.exception("ours")
            logging.getLogger("asyncio").exception("theirs", stack_info=True)
    text = stream.getvalue()
    assert text.count("cannot connect to postgresql://app:[masked]@db/w") == 2
    assert SECRET not in text
    assert PASSWORD not in text


def test_json_is_one_object_a_line_with_time_level_and_fields() -> None:
    stream = io.StringIO()
    with Logs(form="json", masker=Masker(), stream=stream):
        logging.getLogger("watchword").warning("two\nlines", extra={"count": 3})
        logging.getLogger("x").error("%d left", 2, extra={"subject": "svc"})
        logging.getLogger("x").debug("too quiet")
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (ours["event"], ours["level"], ours["count"], ours["logger"]) == ("two\nlines", "warning", 3, "watchword")
    assert (theirs["event"], theirs["level"], theirs["subject"], theirs["logger"]) == ("2 left", "error", "svc", "x")
    assert ours["timestamp"].endswith("Z")


def test_an_endless_line_is_cut_and_stays_json() -> None:
    stream = io.StringIO()
    with Logs(form="json", masker=Masker(), stream=stream):
        logging.getLogger("x").error("x" * LINE_CHARACTERS_MAX + TOKEN)
    assert json.loads(stream.getvalue())["event"] == "log line cut"
    assert SECRET not in stream.getvalue()


def test_a_stream_that_is_no_terminal_gets_json_by_itself() -> None:
    stream = io.StringIO()
    with Logs(masker=Masker(), stream=stream):
        logging.getLogger("x").error("hello")
    assert json.loads(stream.getvalue())["event"] == "hello"


def test_errors_that_nobody_caught_and_warnings_are_masked_too() -> None:
    stream = io.StringIO()
    with Logs(form="json", masker=Masker(), stream=stream):
        try:
            fail()
        except OSError as error:
            sys.excepthook(type(error), error, error.__traceback__)
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(capture=True)
            warnings.warn(TOKEN, stacklevel=1)
            logging.captureWarnings(capture=False)
    assert stream.getvalue().count("cannot connect to postgresql://app:[masked]@db/w") == 2
    assert "[masked]" in stream.getvalue().splitlines()[-1]
    assert SECRET not in stream.getvalue()
    assert PASSWORD not in stream.getvalue()


def test_everything_is_put_back_afterwards() -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level, sys.excepthook, threading.excepthook, sys.unraisablehook)
    with Logs(masker=Masker(), stream=io.StringIO()):
        assert root.handlers != before[0]
    assert (list(root.handlers), root.level, sys.excepthook, threading.excepthook, sys.unraisablehook) == before
    assert not structlog.is_configured()


@pytest.mark.parametrize(("level", "heard"), [("info", False), ("debug", True)])
def test_a_chatty_library_is_heard_when_debugging_alone(level: str, heard: bool) -> None:
    stream, before = io.StringIO(), logging.getLogger("yoyo.migrations").level
    with Logs(form="json", level=level, masker=Masker(), stream=stream):
        logging.getLogger("yoyo.migrations").info("applying step 1")
        logging.getLogger("yoyo.migrations").warning("attention")
    assert ("applying" in stream.getvalue()) is heard
    assert "attention" in stream.getvalue()
    assert logging.getLogger("yoyo.migrations").level == before
