"""Where a command's answer goes: tables for people, JSON for programs, notes and errors beside them on stderr.

stdout holds the answer and nothing else, so that it can be piped. JSON has the field names of the protobuf messages,
timestamps as RFC 3339, durations as `3.5s`, and 64-bit counts as numbers.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TextIO

from watchword_server.cli.durations import format_duration
from watchword_server.cli.errors import BrokenOutputError, CommandError

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

# Wide enough that nothing is cut when the reader is a program or a file.
_WIDTH_PIPED: Final = 4096
_NEWLINE: Final = "\n"


class OutputFormat(enum.StrEnum):
    """How answers are written."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; `whole` ones (ids) are never wrapped."""

    title: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Output:
    """Writes answers in the chosen format."""

    format: OutputFormat

    @property
    def is_json(self) -> bool:
        return self.format is OutputFormat.JSON

    def json(self, value: Mapping[str, object]) -> None:
        self.line(json_text(value, indent=2))

    def line(self, text: str) -> None:
        """Exactly `text` and a newline on stdout."""
        _write(sys.stdout, text + "\n")

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.title, no_wrap=column.whole, overflow="fold")
        for row in rows:
            # Text, not str: what a server sends is data, not markup.
            table.add_row(*(Text(printable(cell)) for cell in row))
        self._rich(table)

    def record(self, fields: Iterable[tuple[str, str]]) -> None:
        """Names and values, one pair a line; pairs without a value are left out."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in fields:
            if value:
                # Both: in a name may be a key of metadata, which a server sends too.
                table.add_row(Text(printable(name)), Text(printable(value)))
        self._rich(table)

    def note(self, text: str) -> None:
        """A remark for people on stderr; programs that asked for JSON are spared it."""
        if not self.is_json:
            _write(sys.stderr, printable(text, keep=_NEWLINE) + "\n")

    def error(self, error: CommandError) -> None:
        """What went wrong, on stderr, in the chosen format."""
        if self.is_json:
            fields = {
                "message": error.message,
                "remedy": error.remedy,
                "reason": error.reason,
                "exit_code": int(error.exit_code),
            }
            _write(sys.stderr, json_text({"error": fields}) + "\n")
        else:
            _write(
                sys.stderr,
                f"watchword: {printable(error.message, keep=_NEWLINE)}\n{printable(error.remedy, keep=_NEWLINE)}\n",
            )

    def _rich(self, renderable: object) -> None:
        from rich.console import Console

        console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDTH_PIPED)
        with console.capture() as captured:
            console.print(renderable)
        # Rich pads cells to the column's width, the last one too.
        lines = (line.rstrip(" ") for line in captured.get().splitlines())
        self.line("\n".join(lines).strip("\n"))


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Python flushes both streams once more at exit and would complain there: give it somewhere to flush to.
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise BrokenOutputError from None


def printable(text: str, keep: str = "") -> str:
    """`text` with control and direction characters written out: a name from a server must not drive the terminal."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in keep else one.encode("unicode_escape").decode("ascii") for one in text
    )


def json_text(value: object, *, indent: int | None = None) -> str:
    """`value` as JSON in which what `printable` writes out is escaped: JSON itself lets the second half of the control
    characters and the directions pass, and is read on terminals too."""
    import json

    text = json.dumps(value, indent=indent, ensure_ascii=False)
    if text.replace(_NEWLINE, "").isprintable():
        return text
    return "".join(one if one.isprintable() or one == _NEWLINE else json.dumps(one)[1:-1] for one in text)


def message_json(message: Message) -> dict[str, object]:
    """A protobuf message under its own field names, empty fields included."""
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.json_format import MessageToDict

    wide = {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}

    # protobuf writes 64-bit numbers as strings, for JavaScript's sake; `"0" > 0` is true in jq. Python, jq and Go
    # read the numbers we have exactly.
    def numbers(of: Message, fields: dict[str, object]) -> dict[str, object]:
        for descriptor in of.DESCRIPTOR.fields:
            value = fields.get(descriptor.name)
            if isinstance(value, str) and descriptor.cpp_type in wide:
                fields[descriptor.name] = int(value)
            elif isinstance(value, dict):
                inner = descriptor.message_type
                if inner is not None and not inner.GetOptions().map_entry:
                    numbers(getattr(of, descriptor.name), value)
            elif isinstance(value, list) and descriptor.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
                for part, part_fields in zip(getattr(of, descriptor.name), value, strict=True):
                    numbers(part, part_fields)
        return fields

    return numbers(
        message,
        MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True),
    )


def instant(timestamp: Timestamp) -> str:
    """RFC 3339 to the second, in UTC."""
    return datetime.fromtimestamp(timestamp.seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant_and_distance(timestamp: Timestamp, now: datetime) -> str:
    """`2027-01-31T12:00:00Z (in 89d23h)`; the distance is by this machine's clock, for orientation."""
    distance = datetime.fromtimestamp(timestamp.seconds, UTC) - now
    if distance >= timedelta():
        return f"{instant(timestamp)} (in {format_duration(distance)})"
    return f"{instant(timestamp)} ({format_duration(-distance)} ago)"
