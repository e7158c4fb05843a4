"""A token file that several processes share: private, replaced as one, locked, and beside it nothing secret."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from watchword.credentials.place import PlaceError
from watchword.credentials.place_file import SharedTokenFile
from watchword.token import format_token_id, new_token, new_token_id

LOCK, NOTE, ASIDE = ".orders.token.lock", ".orders.token.renewal", ".orders.token.new"
NOBODY = 65_534
NOW = 1_700_000_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "orders.token"
    path.write_text(made() + "\n")
    return path


@pytest.fixture
def place(file: Path) -> Iterator[SharedTokenFile]:
    made_place = SharedTokenFile(file)
    yield made_place
    made_place.unlock()


def made() -> str:
    return new_token(new_token_id(0)).text.decode()


def id_of(token: str) -> str:
    return token[3:25]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_the_file_and_all_beside_it_are_private(place: SharedTokenFile, file: Path, umask: int) -> None:
    file.chmod(0o644)
    before = os.umask(umask)
    try:
        assert place.lock()
        place.prepare(id_of(place.token()), NOW)
        assert mode(file.parent / NOTE) == 0o600
        place.store(made())
    finally:
        os.umask(before)
    assert mode(file) == 0o600
    assert mode(file.parent / LOCK) & 0o177 == 0


def test_a_new_token_takes_the_files_place_and_nothing_but_the_lock_stays(place: SharedTokenFile, file: Path) -> None:
    old, new = place.token(), made()
    inode = file.stat().st_ino
    assert place.lock()
    place.prepare(id_of(old), NOW)
    place.store(new)
    place.stored(new)
    place.unlock()
    assert place.token() == new
    assert SharedTokenFile(file).token() == new
    assert file.stat().st_ino != inode, "written over, a reader could see half of it"
    assert names(file.parent) == [LOCK, "orders.token"]


def test_what_cannot_be_written_leaves_the_file_as_it_was(
    place: SharedTokenFile, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = file.read_text()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(PlaceError, match="No space left on device"):
            place.store(made())
    assert file.read_text() == old
    assert names(file.parent) == ["orders.token"]


def test_what_a_kill_left_aside_is_replaced_and_does_not_stay(place: SharedTokenFile, file: Path) -> None:
    (file.parent / ASIDE).write_text(made())
    new = made()
    place.store(new)
    assert place.token() == new
    assert names(file.parent) == ["orders.token"]


def test_the_note_is_no_secret_and_names_one_token_and_one_request(place: SharedTokenFile, file: Path) -> None:
    token = place.token()
    request_id = place.prepare(id_of(token), NOW).request_id
    text = (file.parent / NOTE).read_text()
    assert text == f"{id_of(token)} {request_id} {NOW}\n"
    assert token[25:] not in text
    assert SharedTokenFile(file).prepare(id_of(token), NOW).request_id == request_id, (
        "whoever goes on repeats the request"
    )
    assert SharedTokenFile(file).unfinished(id_of(token))
    other = format_token_id(new_token_id(0))
    assert not place.unfinished(other)
    assert place.prepare(other, NOW).request_id != request_id, "another token's request is another"


def test_attempts_are_numbered_upwards_whoever_makes_them_also_where_the_clock_is_set_back(
    place: SharedTokenFile, file: Path
) -> None:
    token_id = id_of(place.token())
    places = (place, place, SharedTokenFile(file), SharedTokenFile(file))
    times = (NOW, NOW + 1_500, NOW - 3_600_000, NOW - 3_600_000)
    numbers = [one.prepare(token_id, now_ms).number for one, now_ms in zip(places, times, strict=True)]
    assert numbers == [NOW, NOW + 1_500, NOW + 1_501, NOW + 1_502]


def test_a_request_can_be_repeated_where_its_number_cannot_be_written(
    place: SharedTokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    token_id = id_of(place.token())
    first = place.prepare(token_id, NOW)
    monkeypatch.setattr(os, "fsync", full)
    assert place.prepare(token_id, NOW) == first.next(NOW)
    with pytest.raises(PlaceError, match="No space left on device"):
        place.prepare(format_token_id(new_token_id(0)), NOW)


def test_request_ids_are_not_derived_from_the_token(place: SharedTokenFile, tmp_path: Path) -> None:
    # Else a copy of the token could repeat the owner's request, and would end the owner's new token.
    copy = tmp_path / "copy"
    copy.write_text(place.token())
    token_id = id_of(place.token())
    assert SharedTokenFile(copy).prepare(token_id, NOW).request_id != place.prepare(token_id, NOW).request_id


@pytest.mark.parametrize(
    "note",
    [
        "",
        " ",
        "ID",
        "ID ",
        "ID  once",
        "ID on\nce",
        "ID once",
        "ID once more",
        "id once",
        "\x00\xff",
        "ID " + "x" * 2_000,
    ],
)
def test_a_note_that_is_none_is_replaced(place: SharedTokenFile, file: Path, note: str) -> None:
    token_id = id_of(place.token())
    (file.parent / NOTE).write_bytes(note.replace("ID", token_id).encode("latin-1"))
    assert not place.unfinished(token_id)
    request_id = place.prepare(token_id, NOW).request_id
    assert place.prepare(token_id, NOW).request_id == request_id
    place.forget()
    assert not place.unfinished(token_id)
    place.forget()


def test_one_at_a_time_has_the_lock_and_nobody_waits_for_it(place: SharedTokenFile, file: Path) -> None:
    other = SharedTokenFile(file)
    assert place.lock()
    assert place.lock(), "it has it already"
    assert not other.lock()
    place.unlock()
    assert other.lock()
    assert not place.lock()
    other.unlock()
    other.unlock()


def test_a_lock_on_a_file_that_was_removed_is_none(
    place: SharedTokenFile, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    real = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        (file.parent / LOCK).unlink()
        (file.parent / LOCK).touch()
        real(descriptor, operation)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", late)
        assert not place.lock()
    assert place.lock()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_that_lives_on_does_not_keep_the_lock(place: SharedTokenFile, file: Path) -> None:
    assert place.lock()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        os._exit(0)
    try:
        place.unlock()
        assert SharedTokenFile(file).lock()
    finally:
        os.write(write, b"1")
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def test_a_link_stays_one_and_all_who_use_the_file_share_its_lock(place: SharedTokenFile, file: Path) -> None:
    folder = file.parent / "elsewhere"
    folder.mkdir()
    link = folder / "token"
    link.symlink_to(file)
    other = SharedTokenFile(link)
    assert other.lock()
    assert not place.lock()
    new = made()
    other.store(new)
    other.unlock()
    assert link.is_symlink()
    assert place.token() == new
    assert names(folder) == ["token"]


def test_links_in_place_of_what_lies_beside_are_not_followed(place: SharedTokenFile, file: Path) -> None:
    victim = file.parent / "victim"
    victim.write_text("kept")
    for name in (LOCK, ASIDE):
        (file.parent / name).symlink_to(victim)
    with pytest.raises(PlaceError):
        place.lock()
    place.store(made())
    assert victim.read_text() == "kept"
    assert not file.is_symlink()


def test_a_folder_that_is_gone_is_an_error_that_names_the_file(place: SharedTokenFile, file: Path) -> None:
    file.unlink()
    file.parent.rmdir()
    with pytest.raises(PlaceError, match=r"orders\.token cannot be replaced: No such file"):
        place.lock()
    with pytest.raises(PlaceError):
        place.prepare("id", NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_of_the_token_owns_what_replaces_it(place: SharedTokenFile, file: Path) -> None:
    os.chown(file, NOBODY, NOBODY)
    assert place.lock()
    place.prepare(id_of(place.token()), NOW)
    place.store(made())
    for name in (LOCK, NOTE, "orders.token"):
        found = (file.parent / name).stat()
        assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_gives_away_no_file_that_was_put_in_the_locks_place(
    place: SharedTokenFile, file: Path, tmp_path: Path
) -> None:
    os.chown(file, NOBODY, NOBODY)
    roots = tmp_path / "shadow"
    roots.write_text("root's\n")
    os.link(roots, file.parent / LOCK)
    with pytest.raises(PlaceError):
        place.lock()
    assert roots.stat().st_uid == 0
    assert roots.read_text() == "root's\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes links for others")
@pytest.mark.parametrize("link", ["orders.token", "folder"])
def test_a_link_of_another_user_leads_to_no_file_but_his_own(tmp_path: Path, link: str) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    (roots / "orders.token").write_text(made())
    before = (roots / "orders.token").read_text()
    (tmp_path / link).symlink_to(roots if link == "folder" else roots / "orders.token")
    os.lchown(tmp_path / link, NOBODY, NOBODY)
    # Also behind a link of root's own.
    (tmp_path / "first").symlink_to(link if link == "orders.token" else f"{link}/orders.token")
    place = SharedTokenFile(tmp_path / "first")
    for work in (place.lock, lambda: place.store(made()), lambda: place.prepare(id_of(before), NOW), place.forget):
        with pytest.raises(PlaceError, match="link"):
            work()
    assert (names(roots), (roots / "orders.token").read_text()) == (["orders.token"], before)
    os.chown(roots / "orders.token", NOBODY, NOBODY)
    assert place.lock()
    place.store(new := made())
    place.unlock()
    assert (roots / "orders.token").read_text() == new + "\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_file_is_refused_before_anything_is_rotated(file: Path) -> None:
    # Not in pytest's own folder, which keeps other users out.
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        anybodys = Path(shutil.copy(file, folder))
        anybodys.chmod(0o644)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(NOBODY)
                SharedTokenFile(anybodys).lock()
            except PlaceError as error:
                code = 0 if "it belongs to another user" in str(error) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
