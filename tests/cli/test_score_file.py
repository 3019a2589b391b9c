"""`medreward score-file`: every row has its place, and a run that was killed goes on where it stopped."""

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from commands import CLEAN, MEDREWARD, Run, Served, assert_refused
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

Rows = list[dict[str, Any]]


def write(path: Path, rows: Rows) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> Rows:
    if path.suffix == ".parquet":
        rows: Rows = pyarrow.parquet.read_table(path).to_pylist()
        return rows
    return [json.loads(line) for line in path.read_text().splitlines()]


def some_rows(number: int) -> Rows:
    """No two of them share their question, so that each is asked by itself."""
    return [{"id": f"case-{n}", "question": f"Why {n}?", "responses": [f"answer {n}", "none"]} for n in range(number)]


def test_each_form_of_a_row_is_scored_and_a_bad_one_stops_nothing(
    run: Run, server: Served, tmp_path: Path, picture: Path, png: bytes
) -> None:
    text = base64.b64encode(png).decode()
    ask = {"question": "Why?", "response": "so"}
    good: Rows = [
        {"id": 7, "image": "pictures/chest.png", **ask},
        {"id": "x", "image": text, **ask},
        {"image": {"base64": text}, **ask},
        {"image": {"path": "pictures/chest.png"}, "question": "Why?", "responses": ["so", "or so"], "label": 3},
    ]
    bad: Rows = [
        {"image": "pictures/none.png", **ask},
        {"image": {"sha256": "0" * 64}, **ask},
        {"question": "Why?"},
    ]
    source = write(tmp_path / "in.jsonl", [*good, *bad])
    source.write_text(source.read_text() + "\n{torn\n" + json.dumps({"image": None, **ask}))
    done = run("score-file", source, tmp_path / "out.jsonl", "--url", server.url)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("9 rows, 4 failed")
    rows = read(tmp_path / "out.jsonl")
    assert [row["row"] for row in rows] == list(range(9))
    assert [row.get("id") for row in rows[:3]] == [7, "x", None]
    assert all(row["results"][0]["scores"] == rows[0]["results"][0]["scores"] for row in rows[:4])
    assert len(rows[3]["results"]) == 2
    assert rows[4]["error"]["code"] == "image_fetch_failed"
    assert rows[5]["results"][0]["error"]["code"] == "image_unknown"
    assert rows[6]["error"]["code"] == "invalid_field"
    assert rows[7]["error"]["code"] == "malformed"
    assert rows[8]["results"][0]["flags"] == ["no_image"]
    assert {row["model"]["evidence"] for row in rows} == {"none"}


def test_a_parquet_file_gives_the_same_numbers_as_lines(run: Run, server: Served, tmp_path: Path, png: bytes) -> None:
    images: Rows = [
        {"bytes": png, "path": None},
        {"bytes": None, "path": None},
        {"bytes": b"no image", "path": "x.png"},
    ]
    rows = [{**row, "id": n, "image": image} for n, (row, image) in enumerate(zip(some_rows(3), images, strict=True))]
    lines = [{**row, "image": base64.b64encode(row["image"]["bytes"] or b"").decode() or None} for row in rows]
    for path, content in ((tmp_path / "in.parquet", rows), (tmp_path / "in.jsonl", lines)):
        more = ("--steps", "sentences", "--thinking", "both")
        done = run("score-file", write(path, content), path.with_stem("out"), "--url", server.url, *more)
        assert done.returncode == 1, done.stderr
    from_parquet, from_lines = read(tmp_path / "out.parquet"), read(tmp_path / "out.jsonl")
    assert [row["id"] for row in from_parquet] == [0, 1, 2]
    assert from_parquet[2]["results"][0]["error"]["code"] == "image_kind"
    for left, right in zip(from_parquet[:2], from_lines[:2], strict=True):
        for a, b in zip(left["results"], right["results"], strict=True):
            assert (a["scores"], a["logits"], a["reward"]) == (b["scores"], b["logits"], b["reward"])
            assert [(step["end"], step["logits"]) for step in a["steps"]] == [
                (step["end"], step["logits"]) for step in b["steps"]
            ]
            assert a["without_thinking"]["logits"] == b["without_thinking"]["logits"]


def test_in_process_and_served_files_are_the_same(run: Run, server: Served, tmp_path: Path, picture: Path) -> None:
    about_one_image: Rows = [
        {"image": str(picture), "question": "Why?", "response": f"for {n} reasons"} for n in range(3)
    ]
    source = write(tmp_path / "in.jsonl", [*some_rows(20), *about_one_image])
    ways = {
        "here": ["--model", "fake"],
        "there": ["--url", server.url],
        "grpc": ["--url", f"grpc://127.0.0.1:{server.grpc_port}"],
    }
    for name, where in ways.items():
        assert run("score-file", source, tmp_path / f"{name}.jsonl", *where).returncode == 0
    here, there, grpc = ((tmp_path / f"{name}.jsonl").read_bytes() for name in ways)
    assert here == there == grpc


def test_an_image_travels_once_and_rows_about_it_are_one_group(
    run: Run, stub: "Stub", tmp_path: Path, picture: Path
) -> None:
    stub.answer = lambda response: (200, reply(), {})
    rows: Rows = [
        {"image": str(picture), "question": question, "response": f"{question} {n}"}
        for question in ("What?", "Why?")
        for n in range(3)
    ]
    rows[1] |= {"responses": ["so", "or so"], "response": None}
    out = tmp_path / "out.jsonl"
    assert run("score-file", write(tmp_path / "in.jsonl", rows), out, "--url", stub.url).returncode == 0
    assert sorted(stub.asked) == ["What? 0", "Why? 0"]
    assert stub.stored == [hashlib.sha256(picture.read_bytes()).hexdigest()]
    places = [[result["response"] for result in row["results"]] for row in read(out)]
    assert places == [[0], [0, 1], [0], [0], [0], [0]]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_killed_run_goes_on_where_it_stopped(
    run: Run, slow_server: Served, server: Served, tmp_path: Path, suffix: str
) -> None:
    number = 200  # so many that it is killed in their midst
    source, out = write(tmp_path / f"in.{suffix}", some_rows(number)), tmp_path / f"out.{suffix}"
    grows = out if suffix == "jsonl" else tmp_path / "out.parquet.part.jsonl"
    killed = ["score-file", source, out, "--url", slow_server.url, "--concurrency", "4"]
    with subprocess.Popen([MEDREWARD, *map(str, killed)], env=CLEAN) as process:
        _wait_until(lambda: grows.exists() and grows.read_bytes().count(b"\n") >= 10)
        process.kill()
    kept = read_lines(grows)
    assert [row["row"] for row in kept] == list(range(len(kept)))
    assert 10 <= len(kept) < number
    grows.write_bytes(grows.read_bytes() + b'{"row": 99, "resu')
    before = server.items_scored()
    assert run("score-file", source, out, "--url", server.url).returncode == 0
    assert server.items_scored() - before == 2 * (number - len(kept))
    whole = tmp_path / f"whole.{suffix}"
    assert run("score-file", source, whole, "--url", server.url).returncode == 0
    assert out.read_bytes() == whole.read_bytes()
    assert [row["id"] for row in read(out)] == [f"case-{n}" for n in range(number)]
    assert sorted(path.name for path in tmp_path.glob("out.*")) == sorted([out.name, f"{out.name}.run.json"])


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_a_finished_run_is_left_alone(run: Run, server: Served, tmp_path: Path, suffix: str) -> None:
    source = write(tmp_path / f"in.{suffix}", [*some_rows(3), {"question": "", "responses": ["x"]}])
    asked = ["score-file", source, tmp_path / f"out.{suffix}", "--url", server.url, "--json"]
    first = run(*asked)
    content, before = (tmp_path / f"out.{suffix}").read_bytes(), server.items_scored()
    again = run(*asked)
    assert (again.returncode, json.loads(again.stdout)) == (first.returncode, json.loads(first.stdout))
    assert json.loads(again.stdout) | {"out": ""} == {"out": "", "rows": 4, "failed": 1}
    assert again.returncode == 1
    assert (tmp_path / f"out.{suffix}").read_bytes() == content
    assert server.items_scored() == before


def read_lines(path: Path) -> Rows:
    """What stands there in complete lines."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def _wait_until(is_so: Callable[[], bool]) -> None:
    for _ in range(3000):
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about")


class Stub:
    """A server that answers as it is told, keeping what it was asked."""

    def __init__(self) -> None:
        self.fingerprint = "sha256:one"
        self.runtime = "a/b/c"
        self.asked: list[str] = []
        self.stored: list[str] = []
        self.answer: Callable[[str], tuple[int, dict[str, Any], dict[str, str]]] = lambda response: (200, reply(), {})
        self.pinned: set[str | None] = set()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # named by the library
                self._send(200, stub.model(), {})

            def do_PUT(self) -> None:
                digest = hashlib.sha256(self.rfile.read(int(self.headers["Content-Length"]))).hexdigest()
                stub.stored.append(digest)
                self._send(201, {"sha256": digest}, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                response = body["items"][0]["responses"][0]
                stub.asked.append(response)
                stub.pinned.add(self.headers["X-Model-Fingerprint"])
                status, answer, headers = stub.answer(response)
                if "results" in answer:
                    (result,) = answer["results"]
                    results = [{**result, "response": n} for n in range(len(body["items"][0]["responses"]))]
                    answer = {"id": self.headers["X-Request-Id"], "model": stub.model(), "results": results}
                self._send(status, answer, headers)

            def _send(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def model(self) -> dict[str, Any]:
        about = {"name": "stub", "version": "1", "runtime": self.runtime, "evidence": "none"}
        return {**about, "fingerprint": self.fingerprint}


def reply(**results: Any) -> dict[str, Any]:
    six = dict.fromkeys(DIMENSIONS, 0.5)
    result = {"item": 0, "response": 0, "status": "ok", "scores": six, "logits": six, "uncertainty": None}
    return {"results": [{**result, "reward": 1.0, "flags": [], "cached": False, **results}]}


def refusal(code: str) -> dict[str, Any]:
    return {"code": code, "detail": f"it is {code}", "field": None}


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    thread = threading.Thread(target=stub.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield stub
    stub.http.shutdown()
    stub.http.server_close()
    thread.join()


def test_order_is_kept_and_little_is_in_flight_while_the_first_row_takes_its_time(
    run: Run, stub: Stub, tmp_path: Path
) -> None:
    seen_by_first: list[int] = []

    def slow_first(response: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        if response == "answer 0":
            _wait_until(lambda: len(stub.asked) >= 4)
            time.sleep(0.5)
            seen_by_first.append(len(stub.asked))
        return 200, reply(reward=float(response.split()[1])), {}

    stub.answer = slow_first
    source = write(tmp_path / "in.jsonl", some_rows(100))
    done = run("score-file", source, tmp_path / "out.jsonl", "--url", stub.url, "--concurrency", "4")
    assert done.returncode == 0
    assert [row["results"][0]["reward"] for row in read(tmp_path / "out.jsonl")] == [float(n) for n in range(100)]
    assert 4 <= seen_by_first[0] <= 8


def test_a_busy_server_is_asked_again_when_it_said(run: Run, stub: Stub, tmp_path: Path) -> None:
    times: list[float] = []

    def busy_once(response: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        times.append(time.monotonic())
        return (503, refusal("overloaded"), {"Retry-After": "1"}) if len(times) == 1 else (200, reply(), {})

    stub.answer = busy_once
    done = run("score-file", write(tmp_path / "in.jsonl", some_rows(1)), tmp_path / "out.jsonl", "--url", stub.url)
    assert done.returncode == 0, done.stderr
    assert times[1] - times[0] >= 1
    assert stub.pinned == {"sha256:one"}


@pytest.mark.parametrize(("code", "status"), [("overloaded", 503), ("overloaded", 429), ("version_changed", 409)])
def test_a_server_that_will_not_stops_the_run_and_the_next_goes_on(
    run: Run, stub: Stub, tmp_path: Path, code: str, status: int
) -> None:
    stub.answer = lambda response: (status, refusal(code), {}) if response == "answer 2" else (200, reply(), {})
    asked = ["score-file", write(tmp_path / "in.jsonl", some_rows(4)), tmp_path / "out.jsonl", "--url", stub.url]
    assert_refused(run(*asked, "--retry-seconds", "0.3"), "stopped after 2 rows; run it again to go on", code)
    assert len(read(tmp_path / "out.jsonl")) == 2
    stub.answer = lambda response: (200, reply(), {})
    assert run(*asked).returncode == 0
    assert len(read(tmp_path / "out.jsonl")) == 4


def test_a_row_that_always_fails_is_given_up_and_the_rest_goes_on(run: Run, stub: Stub, tmp_path: Path) -> None:
    stub.answer = lambda response: (504, refusal("deadline"), {}) if response == "answer 1" else (200, reply(), {})
    source = write(tmp_path / "in.jsonl", some_rows(3))
    done = run("score-file", source, tmp_path / "out.jsonl", "--url", stub.url, "--retry-seconds", "2")
    assert done.returncode == 1
    rows = read(tmp_path / "out.jsonl")
    assert rows[1]["results"] is None
    assert rows[1]["error"]["code"] == "deadline"
    assert rows[2]["results"][0]["status"] == "ok"
    assert stub.asked.count("answer 1") > 1


def test_another_input_model_type_or_weights_is_not_continued(run: Run, stub: Stub, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", some_rows(2)), tmp_path / "out.jsonl"
    asked = ["score-file", source, out, "--url", stub.url]
    assert run(*asked).returncode == 0
    content = out.read_bytes()
    assert_refused(run(*asked, "--weights", "overall=1"), "out.jsonl was begun with another weights")
    assert_refused(run(*asked, "--steps", "sentences"), "out.jsonl was begun with another steps")
    stub.fingerprint = "sha256:two"
    assert_refused(run(*asked), "another fingerprint")
    stub.fingerprint = "sha256:one"
    stub.runtime = "a/b/d"
    assert_refused(run(*asked), "another dtype")
    stub.runtime = "a/other/c"  # another device goes on
    assert run(*asked).returncode == 0
    write(source, some_rows(3))
    assert_refused(run(*asked), "another input", "out.jsonl.run.json")
    assert out.read_bytes() == content


def test_a_file_of_somebody_else_is_not_written_to(run: Run, stub: Stub, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", some_rows(2))
    digest = hashlib.sha256(source.read_bytes()).digest()
    assert_refused(run("score-file", source, source, "--url", stub.url), "was not begun by score-file")
    assert hashlib.sha256(source.read_bytes()).digest() == digest


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("none.jsonl", "out.jsonl", ["none.jsonl", "No such file"]),
        ("in.jsonl", "out.parquet", ["both in .parquet"]),
        ("in.csv", "out.csv", [".jsonl"]),
        ("in.jsonl", "no-folder/out.jsonl", ["no-folder", "No such file"]),
        ("bad.parquet", "out.parquet", ["bad.parquet is not a Parquet file"]),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_2(
    run: Run, stub: Stub, tmp_path: Path, source: str, target: str, words: list[str]
) -> None:
    write(tmp_path / "in.jsonl", some_rows(1))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 or so")
    assert_refused(run("score-file", source, target, "--url", stub.url), *words)


def test_a_damaged_parquet_file_is_one_line_and_exit_2(run: Run, stub: Stub, tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", some_rows(50))
    content = bytearray(source.read_bytes())
    content[4:400] = bytes(396)
    source.write_bytes(content)
    assert_refused(run("score-file", source, "out.parquet", "--url", stub.url), "in.parquet is damaged")


def test_a_damaged_output_is_not_continued(run: Run, stub: Stub, tmp_path: Path) -> None:
    source, out = write(tmp_path / "in.jsonl", some_rows(3)), tmp_path / "out.jsonl"
    assert run("score-file", source, out, "--url", stub.url).returncode == 0
    lines = out.read_text().splitlines(keepends=True)
    out.write_text(lines[0] + lines[2])
    assert_refused(run("score-file", source, out, "--url", stub.url), "line 2 of", "out.jsonl")


def test_an_unreachable_server_writes_nothing(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", some_rows(1))
    done = run("score-file", source, tmp_path / "out.jsonl", "--url", "http://127.0.0.1:9")
    assert_refused(done, "cannot reach http://127.0.0.1:9")
    assert not list(tmp_path.glob("out.*"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, stub: Stub) -> None:
    source = write(tmp_path / "in.parquet", some_rows(1))
    script = "import sys; sys.modules['pyarrow'] = None; from medreward.cli import main; main()"
    command = [sys.executable, "-c", script, "score-file", str(source), str(tmp_path / "out.parquet")]
    command += ["--url", stub.url]
    done = subprocess.run(command, capture_output=True, text=True, env=CLEAN, timeout=300, check=False)
    assert_refused(done, "pyarrow", "[parquet]")


def test_progress_is_drawn_on_a_terminal_only(server: Served, tmp_path: Path, run: Run) -> None:
    source = write(tmp_path / "in.jsonl", some_rows(30))
    piped = run("score-file", source, tmp_path / "piped.jsonl", "--url", server.url)
    assert piped.stderr == ""
    ours, theirs = os.openpty()
    command = [MEDREWARD, "score-file", str(source), str(tmp_path / "out.jsonl"), "--url", server.url]
    env = CLEAN | {"NO_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=env) as process:
        process.wait(timeout=300)
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # its end
        while part := os.read(ours, 4096):  # a terminal gives no more at a time
            written += part
    os.close(ours)
    drawn = written.decode()
    assert "30/30" in drawn
    assert "\x1b[3" not in drawn  # no colour
