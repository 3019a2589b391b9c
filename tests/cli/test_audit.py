"""`medreward audit`: verify, show and erase, as an operator types them."""

import json
from pathlib import Path

import pytest

from audits import KEY, decision, opened, override, read_entries, write_log
from commands import Run, assert_refused


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A log in several files, and its key beside it."""
    file = tmp_path / "audit.jsonl"
    second = decision(2, "yes", verdict="block", tenant="ward-7")
    write_log(file, [decision(1, "yes", "no"), second, override(1, "wrong side")], max_bytes=500)
    (tmp_path / "audit.jsonl.key").write_text(KEY.secret.hex())
    (tmp_path / "keys.jsonl").write_text('{"id": "another file of such a name"}\n')
    return file


def test_a_whole_log_is_exit_0_by_its_file_its_folder_or_all_files(file: Path, run_here: Run) -> None:
    last = read_entries(file)[-1]["hash"]
    for named in (["audit.jsonl"], ["."], ["audit.jsonl", "audit.000002.jsonl", "audit.000001.jsonl"]):
        done = run_here("audit", "verify", *named)
        assert done.returncode == 0, done
        assert "whole: 6 entries (1 to 6), files: 3" in done.stdout
        assert f"last hash: {last}" in done.stdout
    told = json.loads(run_here("audit", "verify", ".", "--expect-last", last, "--json").stdout)
    assert (told["ok"], told["hash"], told["last"], told["mac_checked"]) == (True, last, 6, True)


def test_a_broken_log_is_exit_1_and_names_file_and_line(file: Path, run_here: Run) -> None:
    older = file.with_name("audit.000001.jsonl")
    older.write_bytes(older.read_bytes().replace(b'"allow"', b'"block"', 1))
    done = run_here("audit", "verify", ".")
    assert done.returncode == 1
    assert "audit.000001.jsonl, line 2: its hash does not fit what it says" in done.stdout
    assert "BROKEN" in done.stdout
    told = json.loads(run_here("audit", "verify", ".", "--json").stdout)
    assert [(problem["file"], problem["line"]) for problem in told["problems"]] == [("audit.000001.jsonl", 2)]
    assert_refused(run_here("audit", "erase", ".", "--about-response", "yes"), "is broken", "audit verify")


def test_without_the_key_it_says_what_it_could_not_check(file: Path, run_here: Run) -> None:
    file.with_name("audit.jsonl.key").unlink()
    done = run_here("audit", "verify", ".")
    assert done.returncode == 0
    assert "checked without the key" in done.stderr
    assert_refused(run_here("audit", "erase", ".", "--about-response", "yes"), "--key-file")


def test_the_oldest_file_may_be_removed_when_its_last_hash_is_given(file: Path, run_here: Run) -> None:
    older = file.with_name("audit.000001.jsonl")
    last = read_entries(older)[-1]["hash"]
    older.unlink()
    done = run_here("audit", "verify", ".")
    assert done.returncode == 1
    assert f"give --from {last}" in done.stdout
    assert run_here("audit", "verify", ".", "--from", last).returncode == 0


def test_what_is_shown_can_be_chosen(file: Path, run_here: Run) -> None:
    (file.parent / "scan").write_text("image 2")

    def shown(*flags: str) -> list[int]:
        return [entry["seq"] for entry in json.loads(run_here("audit", "show", ".", "--json", *flags).stdout)]

    assert shown() == [1, 2, 3, 4, 5, 6]
    assert shown("--event", "decision") == [2, 4]
    assert shown("--verdict", "block") == [4, 6]
    assert shown("--of-tenant", "ward-7") == [4]
    assert shown("--by-policy", "strict") == [2, 4]
    assert shown("--decision", f"{1:032x}") == [2, 6]
    assert shown("--about-response", "no") == [2]
    assert shown("--about-image", "scan") == [4]
    assert shown("--since", "2100-01-01") == []
    assert shown("--until", "2100-01-01", "--last", "2") == [5, 6]


def test_the_table_has_a_row_for_each_response(file: Path, run_here: Run) -> None:
    lines = run_here("audit", "show", "audit.jsonl", "--event", "decision", "--event", "override").stdout.splitlines()
    rows = [line.split() for line in lines if f"{1:032x}" in line or f"{2:032x}" in line]
    assert [(row[0], row[5]) for row in rows] == [("2", "0.0"), ("2", "0.1"), ("4", "0.0"), ("6", "0.0")]
    assert "wrong side" in " ".join(rows[-1])


def test_an_erasure_says_how_much_and_leaves_the_log_whole(file: Path, run_here: Run) -> None:
    asked = ["audit", "erase", ".", "--about-response", "no"]
    before = file.read_bytes()
    assert "would be erased: what the log held about 1 response\n" in run_here(*asked, "--dry-run").stdout
    assert file.read_bytes() == before
    told = json.loads(run_here(*asked, "--json").stdout)
    assert (told["erased"], told["files"]) == (1, ["audit.000001.jsonl"])
    verified = run_here("audit", "verify", ".")
    assert verified.returncode == 0
    assert "erased: what the log held about 1 response" in verified.stdout
    assert read_entries(file)[-1]["by"]
    assert "the rest is erased" in run_here("audit", "show", ".").stdout
    assert "nothing in the log is about that" in run_here(*asked).stdout
    by_decision = run_here("audit", "erase", ".", "--decision", f"{1:032x}")
    assert "erased: what the log held about 2 responses" in by_decision.stdout
    assert run_here("audit", "verify", ".").returncode == 0


def test_nothing_is_erased_beside_a_server(file: Path, run_here: Run) -> None:
    with opened(file):
        assert_refused(
            run_here("audit", "erase", ".", "--about-response", "no"),
            "a server has the audit log",
            "/admin/audit/erase",
        )


def test_what_cannot_be_done_is_one_line_and_exit_2(file: Path, run_here: Run, tmp_path: Path) -> None:
    assert_refused(run_here("audit", "verify", "none.jsonl"), "none.jsonl")
    assert_refused(run_here("audit", "verify", ".", "--expect-last", "abc"), "64 hex digits")
    assert_refused(run_here("audit", "erase", "."), "--about-image")
    (tmp_path / "empty").mkdir()
    assert_refused(run_here("audit", "verify", "empty"), "no audit log")
    write_log(tmp_path / "second.jsonl", [])
    assert_refused(run_here("audit", "show", "."), "audit.jsonl, second.jsonl")
