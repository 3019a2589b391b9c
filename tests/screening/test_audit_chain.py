"""Verifying an audit log: whatever is done to its lines is found, and named."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from audits import KEY, decision, override, write_log
from medreward.screening.audit.chain import Entry, Head, seal
from medreward.screening.audit.files import files_of
from medreward.screening.audit.verify import Report, verify

SECRET = KEY.secret


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of nine entries in one file."""
    file = tmp_path_factory.mktemp("whole") / "audit.jsonl"
    write_log(file, [decision(1), decision(2, "a", "b"), override(2, "wrong side"), *map(decision, range(4, 9))])
    return file


def report(file: Path, key: bytes | None = SECRET, expected: str | None = None) -> Report:
    return verify([file], key, expected=expected)


def changed(whole: Path, change: Callable[[list[bytes]], list[bytes]]) -> list[str]:
    """Returns what is found in the log after a change of its lines, without and with the key."""
    lines = change(whole.read_bytes().splitlines(keepends=True))
    file = whole.with_name("changed.jsonl")
    file.write_bytes(b"".join(lines))
    found = [[str(problem) for problem in report(file, key).problems] for key in (None, SECRET)]
    assert found[0] == found[1]
    return found[0]


def inserted(place: int, line: bytes, lines: list[bytes]) -> list[bytes]:
    return [*lines[:place], line, *lines[place:]]


def test_a_log_as_it_was_written_is_whole(whole: Path) -> None:
    found = report(whole)
    assert (found.problems, found.entries, found.first, found.last) == ([], 9, 1, 9)
    assert found.hash == msgspec.json.decode(whole.read_bytes().splitlines()[-1])["hash"]


@given(data=st.data())
def test_every_change_of_a_byte_is_found_in_its_line(whole: Path, data: st.DataObject) -> None:
    lines = whole.read_bytes().splitlines(keepends=True)
    line = data.draw(st.integers(0, len(lines) - 1))
    place = data.draw(st.integers(0, len(lines[line]) - 2))
    byte = data.draw(st.binary(min_size=0, max_size=2))
    after = lines[line][:place] + byte + lines[line][place + 1 :]
    assume(after != lines[line])
    found = changed(whole, lambda lines: [*lines[:line], after, *lines[line + 1 :]])
    assert found[0].startswith(f"{whole.with_name('changed.jsonl')}, line {line + 1}: ")


@given(line=st.integers(0, 7))
def test_every_dropped_line_is_found_where_it_stood(whole: Path, line: int) -> None:
    (found,) = changed(whole, lambda lines: [*lines[:line], *lines[line + 1 :]])
    assert f", line {line + 1}: " in found
    assert "missing" in found


@given(first=st.integers(0, 8), second=st.integers(0, 8))
def test_every_swap_of_two_lines_is_found(whole: Path, first: int, second: int) -> None:
    assume(first < second)

    def swap(lines: list[bytes]) -> list[bytes]:
        lines[first], lines[second] = lines[second], lines[first]
        return lines

    found = changed(whole, swap)
    assert f", line {first + 1}: " in found[0]
    assert any("moved here or added" in problem for problem in found)


@given(source=st.integers(0, 8), place=st.integers(0, 9))
def test_every_line_that_is_added_is_found(whole: Path, source: int, place: int) -> None:
    found = changed(whole, lambda lines: inserted(place, lines[source], lines))
    assert f", line {place + 1}: " in found[0] or f", line {place + 2}: " in found[0]


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"null\n", b'{"seq":1}\n', b"[" * 100_000 + b"\n", b"\xff\n"])
def test_lines_that_are_no_entries_are_found(whole: Path, line: bytes) -> None:
    for place in (0, 4, 9):
        (found,) = changed(whole, partial(inserted, place, line))
        assert f", line {place + 1}: " in found


def test_a_line_forged_with_a_right_hash_and_no_key_is_found_in_the_middle_and_with_the_key_everywhere(
    whole: Path,
) -> None:
    lines = whole.read_bytes().splitlines(keepends=True)
    entries = [msgspec.json.decode(line) for line in lines]

    def forged(place: int) -> Path:
        entry: Entry = {name: entries[place][name] for name in entries[place] if name not in ("seq", "mac", "hash")}
        previous = Head(place, entry.pop("previous"))
        entry["results"] = [{**result, "verdict": "block"} for result in entry["results"]]
        for result in entry["results"]:
            del result["subject_sha256"]
        line, _ = seal(entry, previous, bytes(32))
        file = whole.with_name("forged.jsonl")
        file.write_bytes(b"".join([*lines[:place], line + b"\n", *lines[place + 1 :]]))
        return file

    assert [problem.line for problem in report(forged(5), key=None).problems] == [7]
    assert [problem.line for problem in report(forged(5)).problems] == [6]
    assert report(forged(8), key=None).ok, "the last line has none behind it: this takes the key or an anchor"
    assert [problem.line for problem in report(forged(8)).problems] == [9]
    assert not report(forged(8), key=None, expected=entries[8]["hash"]).ok


def test_a_tail_that_was_cut_off_is_found_by_an_anchor_alone(whole: Path) -> None:
    lines = whole.read_bytes().splitlines(keepends=True)
    anchor = report(whole).hash
    cut = whole.with_name("cut.jsonl")
    cut.write_bytes(b"".join(lines[:6]))
    assert report(cut).ok
    (problem,) = report(cut, expected=anchor).problems
    assert "the end of the log was cut off" in problem.what
    assert report(whole, expected=report(cut).hash).ok, "an older anchor is still in a log that has grown"


def test_a_whole_file_that_is_missing_is_found(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    write_log(file, list(map(decision, range(1, 8))), max_bytes=2000)
    files = files_of(file)
    assert len(files) > 3
    assert verify(files, SECRET).ok
    (problem,) = verify([*files[:1], *files[2:]], SECRET).problems
    assert (problem.file, problem.line) == (str(files[2]), 1)
    assert "missing before" in problem.what


def test_a_beginning_that_was_removed_on_purpose_is_named_by_the_hash_of_its_last_entry(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    write_log(file, list(map(decision, range(1, 8))), max_bytes=2000)
    kept = files_of(file)[1:]
    removed = verify(files_of(file)[:1]).hash
    (problem,) = verify(kept).problems
    assert problem.line == 1
    assert f"--from {removed}" in problem.what
    assert verify(kept, SECRET, begins_after=removed).ok
    assert not verify(kept, SECRET, begins_after="1" * 64).ok
