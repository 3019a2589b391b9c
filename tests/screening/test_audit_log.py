"""The files of an audit log: going on, rotation, torn lines, full disks, locks, erasure."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from audits import KEY, decision, opened, override, read_entries, room_for, write_log
from medreward import __version__
from medreward.errors import ConfigurationError
from medreward.screening.audit.erasing import erasure_entry, find_subjects, rewrite
from medreward.screening.audit.files import files_of
from medreward.screening.audit.key import AuditKey, make_key, read_key
from medreward.screening.audit.log import AuditLog, is_open
from medreward.screening.audit.verify import verify

NOBODY = 65534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may write everywhere: the block runs as somebody who may not."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def is_whole(file: Path, **how: Any) -> bool:
    return verify(files_of(file), KEY.secret, **how).ok


def test_a_log_is_readable_for_its_owner_alone_and_begins_with_version_and_key(file: Path) -> None:
    write_log(file, [])
    (opening,) = read_entries(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert (opening["event"], opening["seq"], opening["file"]) == ("open", 1, 1)
    assert (opening["key"], opening["version"]) == (KEY.fingerprint, __version__)


def test_the_chain_goes_on_after_a_restart(file: Path) -> None:
    write_log(file, [decision(1)])
    write_log(file, [decision(2)])
    assert [entry["event"] for entry in read_entries(file)] == ["open", "decision", "open", "decision"]
    assert is_whole(file)


def test_the_chain_goes_on_through_files(file: Path) -> None:
    write_log(file, list(map(decision, range(1, 10))), max_bytes=2000)
    files = files_of(file)
    assert [one.name for one in files[:2]] == ["audit.000001.jsonl", "audit.000002.jsonl"]
    assert files[-1] == file
    openings = [read_entries(one)[0] for one in files]
    assert [opening["file"] for opening in openings] == list(range(1, len(files) + 1))
    assert openings[1]["previous"] == read_entries(files[0])[-1]["hash"]
    assert is_whole(file)


def test_a_server_that_was_stopped_between_two_files_goes_on(file: Path) -> None:
    write_log(file, [decision(1)])
    file.rename(file.with_name("audit.000001.jsonl"))
    write_log(file, [decision(2)])
    assert read_entries(file)[0]["file"] == 2
    assert is_whole(file)


def test_the_numbers_of_files_go_on_when_the_oldest_were_removed(file: Path) -> None:
    write_log(file, list(map(decision, range(1, 6))), max_bytes=2000)
    for older in files_of(file)[:-1]:
        older.unlink()
    number = read_entries(file)[0]["file"]
    write_log(file, [decision(7), decision(8), decision(9)], max_bytes=2000)
    assert files_of(file)[0].name == f"audit.{number:06d}.jsonl"


@pytest.mark.parametrize("torn", [b'{"seq":3,"time":"2026', b"\0" * 5000, b"x" * 200_000])
def test_a_torn_last_line_is_kept_aside_and_the_chain_goes_on(file: Path, torn: bytes) -> None:
    write_log(file, [decision(1)])
    with file.open("ab") as end:
        end.write(torn)
    (problem,) = verify([file]).problems
    assert problem.line == 3
    write_log(file, [decision(2)])
    found = verify([file], KEY.secret)
    assert (found.ok, found.torn, found.entries) == (True, 1, 4)
    told = read_entries(file)[2]["torn"]
    assert told["bytes"] == len(torn)
    assert file.with_name(told["kept_as"]).read_bytes() == torn


def test_a_log_whose_first_line_is_torn_begins_anew(file: Path) -> None:
    file.write_bytes(b'{"seq":1')
    write_log(file, [decision(1)])
    assert read_entries(file)[0]["torn"]["bytes"] == 8
    assert is_whole(file)


def test_what_a_full_disk_left_is_taken_back_and_the_chain_goes_on(file: Path) -> None:
    with opened(file) as log:
        log.append([decision(1)])
        before = file.read_bytes()
        with room_for(len(before) + 500):
            for _ in range(2):
                with pytest.raises(OSError, match="too large"):
                    log.append([decision(2), decision(3)])
                assert file.read_bytes() == before
        log.append([decision(4)])
    assert [entry.get("request_id") for entry in read_entries(file)[1:]] == ["request-1", "request-4"]
    assert is_whole(file)


def test_a_disk_that_is_full_when_a_new_file_begins_loses_nothing(file: Path) -> None:
    with opened(file, max_bytes=500) as log:
        log.append([decision(1)])
        with room_for(100), pytest.raises(OSError, match="too large"):
            log.append([decision(2)])
        log.append([decision(3)])
    assert [entry["event"] for entry in read_entries(file)] == ["open", "decision"]
    assert is_whole(file)


@pytest.mark.parametrize("what", ["truncated", "moved", "removed", "appended"])
def test_another_program_that_touches_the_file_is_noticed(file: Path, what: str) -> None:
    with opened(file) as log:
        log.append([decision(1)])
        match what:
            case "truncated":
                os.truncate(file, 0)
            case "moved":
                file.rename(file.with_name("audit.jsonl.1"))
            case "removed":
                file.unlink()
            case _:
                file.write_bytes(file.read_bytes() + b"\n")
        with pytest.raises(OSError, match=r"No such file|another program"):
            log.append([decision(2)])


@pytest.mark.parametrize("is_synced", [True, False])
def test_an_entry_is_on_disk_before_append_returns_unless_that_is_switched_off(
    file: Path, monkeypatch: pytest.MonkeyPatch, is_synced: bool
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", lambda fd: synced.append(os.fstat(fd).st_size))
    with closing(AuditLog(file, KEY, 2**30, is_synced)) as log:
        log.append([decision(1), decision(2)])
    assert synced[1:] == ([file.stat().st_size] if is_synced else [])


def test_one_process_at_a_time_has_a_log(file: Path) -> None:
    with opened(file):
        assert is_open(file)
        with pytest.raises(ConfigurationError, match="another process has it open"):
            write_log(file, [])
    assert not is_open(file)
    write_log(file, [])


def test_a_log_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Is a directory"):
        write_log(tmp_path, [])
    with pytest.raises(ConfigurationError, match="No such file"):
        write_log(tmp_path / "missing" / "audit.jsonl", [])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="no regular file"):
        write_log(tmp_path / "pipe", [])


def test_a_read_only_log_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        file = Path(folder) / "audit.jsonl"
        write_log(file, [])
        file.chmod(0o444)
        file.with_name("audit.jsonl.lock").chmod(0o666)
        with as_nobody(), pytest.raises(ConfigurationError, match=r"audit\.jsonl: Permission denied"):
            write_log(file, [])


def test_a_log_that_was_changed_at_its_end_or_has_another_key_is_refused(file: Path) -> None:
    write_log(file, [decision(1)])
    with pytest.raises(ConfigurationError, match=f"written with the key {KEY.fingerprint}"):
        opened(file, key=AuditKey(bytes(32)))
    file.write_bytes(file.read_bytes().replace(b'"allow"', b'"block"'))
    with pytest.raises(ConfigurationError, match="last line is broken"):
        write_log(file, [])


def test_a_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "audit.key"
    key = make_key(file)
    assert read_key(file) == key
    assert file.stat().st_mode & 0o777 == 0o600
    assert key.secret.hex() not in repr(key)
    with pytest.raises(ConfigurationError, match="File exists"):
        make_key(file)
    for text in ("", "abc", "g" * 64, "0" * 63):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match="64 hex digits"):
            read_key(file)


def test_the_digest_of_a_payload_is_that_of_its_sha256() -> None:
    sha256 = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"  # of "a"
    assert KEY.digest("a") == KEY.digest(b"a") == KEY.digest_of(sha256)
    assert AuditKey(bytes(32)).digest("a") != KEY.digest("a")
    assert KEY.digest("\ud800")


def erased(file: Path, digests: list[str], decisions: list[str] | None = None) -> int:
    """Erases from a log and returns how many subjects."""
    found = find_subjects(files_of(file), digests, decisions or [])
    with opened(file) as log:
        log.append([erasure_entry(found, "somebody")])
    for path, entries in found.items():
        rewrite(path, entries)
    return sum(len(places) for entries in found.values() for places in entries.values())


def test_an_erasure_takes_all_about_a_payload_and_the_chain_stays_whole(file: Path) -> None:
    decisions = [decision(1, "yes", "no"), decision(2, "yes"), override(1, "he is Mr X", response=0), decision(3, "no")]
    write_log(file, [*decisions, override(3, "no reason")], max_bytes=3000)
    assert len(files_of(file)) > 1
    before = verify(files_of(file)).hash
    assert erased(file, [KEY.digest("yes")]) == 3
    text = b"".join(one.read_bytes() for one in files_of(file)).decode()
    assert KEY.digest("yes") not in text
    assert KEY.digest("image 2") not in text
    assert "Mr X" not in text
    assert KEY.digest("no") in text
    assert "no reason" in text
    found = verify(files_of(file), KEY.secret, expected=before)
    assert (found.ok, found.erased) == (True, 3)
    assert [entry["event"] for entry in read_entries(file)][-1] == "erasure"
    assert erased(file, [KEY.digest("yes")]) == 0, "a second time nothing is left"


@pytest.mark.parametrize(
    ("about", "subjects"), [("image 1", 2), ("Is there a fracture?", 3), ("no", 1), ("nothing like it", 0)]
)
def test_an_erasure_is_by_image_question_or_response(file: Path, about: str, subjects: int) -> None:
    write_log(file, [decision(1, "yes", "no"), decision(2, "yes")])
    assert erased(file, [KEY.digest(about)]) == subjects
    assert is_whole(file)


def test_an_erasure_is_by_decision(file: Path) -> None:
    write_log(file, [decision(1, "yes", "no"), override(1, "why"), decision(2, "yes")])
    assert erased(file, [], [f"{1:032x}"]) == 3
    assert [entry["verdict"] for entry in read_entries(file)[1]["results"]] == ["allow", "allow"]
    assert is_whole(file)


def test_a_subject_that_nobody_erased_and_one_that_came_back_are_found(file: Path) -> None:
    write_log(file, [decision(1, "yes")])
    with_subject = file.read_bytes().splitlines(keepends=True)
    erased(file, [KEY.digest("yes")])
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([with_subject[0], with_subject[1], *lines[2:]]))
    (problem,) = verify([file]).problems
    assert "entry 2 has a subject that entry 4 erased" in problem.what
    file.write_bytes(b"".join(lines[:2]))
    (problem,) = verify([file]).problems
    assert (problem.line, problem.what) == (2, "a subject is missing, and no erasure names it")
