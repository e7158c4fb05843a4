"""`watchword scan` finds tokens wherever they stand in files, says where, and never what they are."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import PROCESS_SECONDS_MAX, CommandLine
from tests.servers import WATCHWORD
from watchword.token import ParsedToken, format_token_id, new_token, new_token_id
from watchword_server.scan.search import Searcher

EXPIRES_AT_MS = 1_900_000_000_000


def token(prefix: str = "ww_") -> ParsedToken:
    return new_token(new_token_id(EXPIRES_AT_MS), prefix)


def token_id(of: ParsedToken) -> str:
    return format_token_id(of.token_id)


def secret_of(of: ParsedToken) -> str:
    return of.text.decode()[-39:]


def hits(data: bytes, *prefixes: str, chunk_bytes: int = 1) -> list[tuple[int, ParsedToken]]:
    stream = io.BytesIO(data)
    return list(Searcher(prefixes or ("ww_",), chunk_bytes).hits(stream.readinto))


@pytest.fixture
def one() -> ParsedToken:
    return token()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


class TestSearch:
    @pytest.mark.parametrize("encoding", ["ascii", "utf-16-le", "utf-16-be"])
    def test_found_at_every_place_in_a_chunk_and_across_its_border(self, one: ParsedToken, encoding: str) -> None:
        text = one.text.decode().encode(encoding)
        for before in range(600):
            assert hits(b"." * before + text + b"." * (before % 7)) == [(1, one)], before

    def test_each_of_many_is_found_once_on_its_line(self) -> None:
        tokens = [token() for _ in range(50)]
        data = b"".join(b"\n" * (at % 4) + one.text for at, one in enumerate(tokens))
        lines = [1 + sum(at % 4 for at in range(upto + 1)) for upto in range(50)]
        assert hits(data) == list(zip(lines, tokens, strict=True)) == hits(data, chunk_bytes=1 << 20)

    def test_reads_may_be_short(self, one: ParsedToken) -> None:
        stream = io.BytesIO(b"\n" * 300 + one.text)
        assert list(Searcher(["ww_"]).hits(lambda view: stream.readinto(view[:3]))) == [(301, one)]

    def test_a_searcher_forgets_the_stream_before(self, one: ParsedToken) -> None:
        searcher = Searcher(["ww_"])
        assert list(searcher.hits(io.BytesIO(b"\n\n" + one.text).readinto)) == [(3, one)]
        assert list(searcher.hits(io.BytesIO(one.text[:40]).readinto)) == []
        assert list(searcher.hits(io.BytesIO(b"").readinto)) == []

    @pytest.mark.parametrize("at", range(64))
    def test_one_wrong_character_is_no_token(self, one: ParsedToken, at: int) -> None:
        wrong = bytearray(one.text)
        wrong[at] = ord("a" if wrong[at] != ord("a") else "b")
        assert hits(bytes(wrong)) == []

    def test_what_stands_beside_it_does_not_hide_it(self, one: ParsedToken) -> None:
        assert hits(b"ww_ww_" + b"x" * 60 + b"ww" + one.text + b"abc123") == [(1, one)]

    def test_only_the_prefixes_asked_for_are_found(self) -> None:
        ours, theirs = token("acme_"), token("ww_")
        data = ours.text + b"\n" + theirs.text
        assert hits(data, "acme_") == [(1, ours)]
        assert hits(data, "ww_", "acme_", "ww_") == [(1, ours), (2, theirs)]

    def test_a_cut_token_at_the_end_is_none(self, one: ParsedToken) -> None:
        assert [hits(one.text[:length]) for length in range(64)] == [[]] * 64


def test_found_is_said_with_place_id_and_end_and_the_exit_code_is_1(
    offline: CommandLine, folder: Path, one: ParsedToken
) -> None:
    (folder / "a").mkdir()
    (folder / "a" / "settings.py").write_bytes(b"import os\n\nTOKEN = '" + one.text + b"'\n")
    ended = offline("scan", str(folder))
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].split() == [
        f"{folder}/a/settings.py:3",
        token_id(one),
        "2030-03-17T17:46:40Z",
    ]
    assert "1 token in 1 file" in ended.stderr


@pytest.mark.parametrize("form", ["table", "json"])
def test_no_secret_in_any_output(offline: CommandLine, folder: Path, one: ParsedToken, form: str) -> None:
    named = token()
    (folder / f"{named.text.decode()}.txt").write_bytes(one.text)
    ended = offline("scan", str(folder), "-o", form)
    assert ended.returncode == 1
    assert token_id(one) in ended.stdout
    for canary in (one, named):
        assert canary.text.decode() not in ended.stdout + ended.stderr
        assert secret_of(canary) not in ended.stdout + ended.stderr
    assert secret_of(one) not in repr(hits(one.text))


def test_json_is_one_object(offline: CommandLine, folder: Path, one: ParsedToken) -> None:
    (folder / "x").write_bytes(b"\n" + one.text)
    ended = offline("scan", str(folder), "--output", "json")
    assert ended.stderr == ""
    assert json.loads(ended.stdout) == {
        "findings": [
            {
                "path": f"{folder}/x",
                "line": 2,
                "object_id": "",
                "token_id": token_id(one),
                "expires_by": "2030-03-17T17:46:40Z",
            }
        ],
        "unreadable": [],
        "files_count": 1,
        "objects_count": 0,
        "bytes_count": 65,
    }


def test_nothing_found_exits_0(offline: CommandLine, folder: Path, one: ParsedToken) -> None:
    (folder / "x").write_bytes(one.text[:-1] + b"_")
    ended = offline("scan", str(folder))
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "No token in 1 file" in ended.stderr


def test_neither_server_nor_token_is_asked_for(offline: CommandLine, folder: Path) -> None:
    (folder / "x").touch()
    assert offline("scan", str(folder), WATCHWORD_ADDRESS=":::", WATCHWORD_TOKEN_FILE="/absent").returncode == 0
    refused = offline("scan", str(folder), "--revoke")
    assert refused.returncode == 5


def test_binary_files_and_huge_lines_are_read(offline: CommandLine, folder: Path, one: ParsedToken) -> None:
    (folder / "program").write_bytes(bytes(range(256)) * 9 + b"\0" + one.text + b"\0")
    (folder / "line").write_bytes(b"x" * 3_000_000 + one.text)
    found = json.loads(offline("scan", str(folder), "-o", "json").stdout)["findings"]
    assert [(Path(one["path"]).name, one["line"]) for one in found] == [("line", 1), ("program", 10)]


def test_standard_input_is_read(offline: CommandLine, one: ParsedToken) -> None:
    ended = offline("scan", "-", stdin=f"\n\n{one.text.decode()}")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[-1].split()[:2] == ["-:3", token_id(one)]
    assert offline("scan", "-", stdin="nothing").returncode == 0


def test_another_prefix_is_an_option_and_the_servers_variable(offline: CommandLine, folder: Path) -> None:
    theirs = token("acme_")
    (folder / "x").write_bytes(theirs.text)
    assert offline("scan", str(folder)).returncode == 0
    assert offline("scan", str(folder), "--prefix", "ww_", "--prefix", "acme_").returncode == 1
    assert offline("scan", str(folder), WATCHWORD_TOKEN_PREFIX="acme_").returncode == 1
    refused = offline("scan", str(folder), "--prefix", "Acme")
    assert (refused.returncode, "a token prefix is" in refused.stderr) == (2, True)


def test_no_link_is_followed_out_of_the_tree_or_in_circles(
    offline: CommandLine, folder: Path, tmp_path: Path, one: ParsedToken
) -> None:
    (tmp_path / "outside").write_bytes(one.text)
    (folder / "loop").symlink_to(folder)
    (folder / "out").symlink_to(tmp_path / "outside")
    (folder / "nowhere").symlink_to("absent")
    os.mkfifo(folder / "pipe")
    assert offline("scan", str(folder)).returncode == 0
    # What is named is read whatever it is.
    assert offline("scan", str(folder / "out")).returncode == 1


def test_folders_of_version_control_are_left_out(offline: CommandLine, folder: Path, one: ParsedToken) -> None:
    (folder / ".hg").mkdir()
    (folder / ".hg" / "store").write_bytes(one.text)
    assert offline("scan", str(folder)).returncode == 0
    assert offline("scan", str(folder / ".hg" / "store")).returncode == 1


def test_what_is_named_twice_is_told_once(offline: CommandLine, folder: Path, one: ParsedToken) -> None:
    (folder / "x").write_bytes(one.text + b" " + one.text)
    ended = offline("scan", str(folder), str(folder), str(folder / "x"), "-o", "json")
    assert len(json.loads(ended.stdout)["findings"]) == 1


def test_an_end_beyond_the_calendar_stops_no_scan(offline: CommandLine, folder: Path) -> None:
    (folder / "x").write_bytes(new_token(new_token_id((1 << 48) - 1)).text)
    ended = offline("scan", str(folder))
    assert (ended.returncode, "9999-12-31T23:59:59Z" in ended.stdout) == (1, True)


def test_a_file_that_is_absent_is_named_and_the_exit_code_says_so(
    offline: CommandLine, folder: Path, one: ParsedToken
) -> None:
    (folder / "x").touch()
    ended = offline("scan", str(folder / "absent"), str(folder))
    assert ended.returncode == 78
    assert f"{folder}/absent: No such file or directory" in ended.stderr
    (folder / "x").write_bytes(one.text)
    both = offline("scan", str(folder / "absent"), str(folder))
    assert both.returncode == 1
    assert f"{folder}/absent: No such file or directory" in both.stderr
    assert json.loads(offline("scan", str(folder / "absent"), "-o", "json").stdout)["unreadable"] == [
        {"path": f"{folder}/absent", "error": "No such file or directory"}
    ]


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_read(offline: CommandLine, folder: Path) -> None:
    """With a file that fails when it is read: whoever runs this may be allowed to open everything."""
    (folder / "x").write_bytes(b"x")
    ended = offline("scan", "/proc/self/mem", str(folder))
    assert ended.returncode == 78
    assert "/proc/self/mem: Input/output error" in ended.stderr
    assert "1 file" in ended.stderr


def test_a_path_is_needed(offline: CommandLine) -> None:
    assert offline("scan").returncode == 2


def test_a_token_among_the_arguments_is_refused(offline: CommandLine, one: ParsedToken) -> None:
    ended = offline("scan", one.text.decode())
    assert ended.returncode == 2
    assert secret_of(one) not in ended.stderr


def test_a_terminal_sees_a_bar_and_a_pipe_does_not(offline: CommandLine, folder: Path) -> None:
    (folder / "x").write_bytes(b"x" * 10_000_000)
    assert "Scanning" not in offline("scan", str(folder)).stderr
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*WATCHWORD, "scan", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env={**offline.environment, "TERM": "xterm"},
        ) as process:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    part = os.read(ours, 65_536)
                except OSError:
                    break
                if not part:
                    break
                shown += part
            assert process.wait(PROCESS_SECONDS_MAX) == 0
    finally:
        os.close(ours)
    assert b"Scanning files" in shown
    assert b"No token in 1 file" in shown
