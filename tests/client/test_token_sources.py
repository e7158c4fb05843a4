"""Where tokens come from, that changes are noticed, and that no error or repr shows one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from watchword import StaticToken, TokenFile, TokenSource, TokenSourceError, TokenVariable

CANARY = "ww_canary"


def failure(source: TokenSource) -> str:
    with pytest.raises(TokenSourceError) as caught:
        source.token()
    assert "canary" not in str(caught.value) + repr(caught.value)
    return str(caught.value)


def test_a_string_is_stripped_and_given() -> None:
    assert StaticToken(f" {CANARY}\n").token() == CANARY


@pytest.mark.parametrize(
    "text", ["", " ", "canary canary", "canary\ncanary", "canary,canary", "canar\u00fd", "canary\0"]
)
def test_what_is_not_one_word_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TokenSourceError) as caught:
        StaticToken(text)
    assert "canar" not in str(caught.value)
    file = tmp_path / "token"
    file.write_text(text)
    assert str(file) in failure(TokenFile(file))
    if "\0" not in text:
        monkeypatch.setenv("SOME_TOKEN", text)
        assert "SOME_TOKEN" in failure(TokenVariable("SOME_TOKEN"))


def test_a_file_is_read_again_after_it_was_written_to(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    source = TokenFile(file)
    assert source.token() == "first"
    file.write_text("second\n")
    assert source.token() == "second"


def test_a_file_is_read_again_after_it_was_replaced_by_one_of_equal_size_and_time(tmp_path: Path) -> None:
    file, other = tmp_path / "token", tmp_path / "other"
    for path, text in ((file, "first"), (other, "other")):
        path.write_text(text)
        os.utime(path, (1, 1))
    source = TokenFile(file)
    assert source.token() == "first"
    other.replace(file)
    assert source.token() == "other"


def test_a_linked_file_is_read_again_after_the_link_was_turned(tmp_path: Path) -> None:
    # How Kubernetes renews a mounted secret.
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "token"
    link.symlink_to("one")
    source = TokenFile(link)
    assert source.token() == "one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").replace(link)
    assert source.token() == "two"


def test_a_file_that_is_gone_or_emptied_gives_no_token_any_more(tmp_path: Path) -> None:
    file = tmp_path / "token"
    source = TokenFile(file)
    assert "No such file" in failure(source)
    file.write_text(CANARY)
    assert source.token() == CANARY
    file.write_text("")
    assert "empty" in failure(source)
    file.unlink()
    assert "No such file" in failure(source)
    file.write_text(CANARY)
    assert source.token() == CANARY


def test_a_large_file_is_not_taken_for_a_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("canary" * 10_000)
    assert "too large" in failure(TokenFile(file))


def test_an_unchanged_file_is_not_opened_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(CANARY)
    source = TokenFile(file)
    assert source.token() == CANARY
    marks = os.stat(file)
    # Same inode, size and time with another content: only opening it would tell.
    file.write_text("ww_cuckoo")
    os.utime(file, ns=(marks.st_atime_ns, marks.st_mtime_ns))
    assert source.token() == CANARY


def test_a_variable_is_looked_up_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    source = TokenVariable()
    monkeypatch.delenv("WATCHWORD_TOKEN", raising=False)
    assert "WATCHWORD_TOKEN" in failure(source)
    monkeypatch.setenv("WATCHWORD_TOKEN", CANARY)
    assert source.token() == CANARY
    monkeypatch.setenv("WATCHWORD_TOKEN", "other")
    assert source.token() == "other"


def test_no_repr_shows_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "token"
    file.write_text(CANARY)
    monkeypatch.setenv("SOME_TOKEN", CANARY)
    sources: list[TokenSource] = [StaticToken(CANARY), TokenFile(file), TokenVariable("SOME_TOKEN")]
    for source in sources:
        assert source.token() == CANARY
        assert "canary" not in repr(source) + str(source)
