"""Reads `WATCHWORD_*` variables and the files they name into plain values. Knows names, not meanings."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

PREFIX: Final = "WATCHWORD_"
SECRET_FILE_BYTES_MAX: Final = 65_536

CLIENT_VARIABLES: Final = frozenset(
    {
        "WATCHWORD_ADDRESS",
        "WATCHWORD_ALLOW_PLAINTEXT",
        "WATCHWORD_CA_FILE",
        "WATCHWORD_CERTIFICATE_FILE",
        "WATCHWORD_KEY_FILE",
        "WATCHWORD_OUTPUT",
        "WATCHWORD_TEST_DSN",
        "WATCHWORD_TEST_POSTGRES",
        "WATCHWORD_TIMEOUT_SECONDS",
        "WATCHWORD_TOKEN",
        "WATCHWORD_TOKEN_FILE",
    }
)
"""Variables of the command line, the client library and the tests: known, and none of the server's business."""


# Kubernetes puts these into every pod beside a Service named watchword or watchword-something.
_SERVICE_LINK: Final = re.compile(
    r"WATCHWORD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)"
)


class SettingsError(Exception):
    """The settings cannot be used. Its text is for people: a line for each problem, never a value."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("The settings need attention:\n" + "\n".join(f"  - {problem}" for problem in self.problems))


@dataclass(frozen=True, slots=True)
class EnvironmentValues:
    """What the environment gave: text by field name, and what deserves a look."""

    values: Mapping[str, str]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        return f"EnvironmentValues({sorted(self.values)})"


def read_environment(
    environ: Mapping[str, str],
    *,
    fields: Iterable[str],
    secret_fields: frozenset[str],
    may_be_empty: frozenset[str],
) -> EnvironmentValues:
    """Collects the variables of `fields`, reading `..._FILE` for the secret ones.

    Raises SettingsError for an unknown variable (a misspelt limit would otherwise be no limit), an empty one (an empty
    address of a database would otherwise start another database), both forms at once, and unreadable files.
    """
    variables = {PREFIX + name.upper(): name for name in fields}
    file_variables = {f"{PREFIX}{name.upper()}_FILE": name for name in secret_fields}
    values: dict[str, str] = {}
    problems: list[str] = []
    warnings: list[str] = []
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable in CLIENT_VARIABLES or _SERVICE_LINK.fullmatch(variable):
            continue
        name = variables.get(variable)
        file_name = file_variables.get(variable)
        if name is None and file_name is None:
            problems.append(_unknown(variable, [*variables, *file_variables]))
        elif not value.strip() and name not in may_be_empty:
            problems.append(f"{variable} is set but empty: give it a value or unset it")
        elif name is not None:
            values[name] = value.strip()
        elif file_name is not None and variable.removesuffix("_FILE") in environ:
            problems.append(f"{variable} and {variable.removesuffix('_FILE')} are both set: keep one")
        elif file_name is not None:
            try:
                values[file_name] = _read_secret(variable, Path(value), warnings)
            except ValueError as problem:
                problems.append(str(problem))
    if problems:
        raise SettingsError(problems)
    return EnvironmentValues(values, tuple(warnings))


def _unknown(variable: str, known: list[str]) -> str:
    nearest = get_close_matches(variable, known, n=1, cutoff=0.6)
    hint = f": did you mean {nearest[0]}?" if nearest else ": unset it, or see docs/operate.md for the names"
    return f"{variable} is not a setting{hint}"


def _read_secret(variable: str, path: Path, warnings: list[str]) -> str:
    """The file's text without the newline an editor leaves. Raises ValueError without the content."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(SECRET_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ValueError(f"{variable}: cannot read {path}: {error.strerror}") from None
    if len(content) > SECRET_FILE_BYTES_MAX:
        raise ValueError(f"{variable}: {path} has more than {SECRET_FILE_BYTES_MAX} bytes: is it the right file?")
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError(f"{variable}: {path} is not text") from None
    if not text:
        raise ValueError(f"{variable}: {path} is empty")
    # Orchestrators mount secrets group-readable, and with good reason, so this is a warning: only others matter.
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        warnings.append(f"{variable}: every user of this machine can read {path}: chmod 600 it")
    return text
