"""Nothing of ours talks to anybody who was not named to it, and no file is left where nobody asked for one.

A command fails here as a hospital would fail it: by one name that it asks for, or one file in the home folder.
"""

import sys
from pathlib import Path

import grpc
import httpx
import pytest

import pictures
from bench.sets import some_cases, write_set
from cases import b64, to_message
from serving import STUB
from traced import Room

pytestmark = pytest.mark.slow

QUESTION = "Is there a fracture?"

#: A connection, a datagram, a name and a file, each by another process than the one that is run.
STRAYS = {
    "a connection": ("socket.create_connection(('192.0.2.1', 9), 0.1)", "192.0.2.1"),
    "a connection over IPv6": ("socket.socket(socket.AF_INET6).connect(('2001:db8::1', 9))", "2001:db8::1"),
    "a datagram": ("socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))", "192.0.2.1"),
    "a name": ("socket.getaddrinfo('medreward.invalid', 443)", "htons(53)"),
    "a file at home": ("Path('~/.cache').expanduser().mkdir()", "home/.cache"),
    "a file at home that goes again": ("(file := Path.home() / 'x').touch(); file.unlink()", "home/x"),
    "a file elsewhere": ("os.rename('made', '../elsewhere')", "elsewhere"),
    "a temporary file that stays": ("tempfile.mkstemp(suffix='stays')", "stays"),
}
WITHIN = """
with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_INET6) as dual:
    socket.create_connection(server.getsockname()).close()
    dual.connect(("::ffff:127.0.0.1", server.getsockname()[1]))
socket.getaddrinfo("localhost", 80)
with tempfile.NamedTemporaryFile() as file:
    Path(file.name).write_text("gone again")
Path("made").write_text("in the folder of work")
Path("/dev/null").write_text("nowhere")
multiprocessing.get_context("spawn").Lock()
"""


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "room")


def program(lines: str) -> str:
    return f"import multiprocessing, os, socket, tempfile\nfrom pathlib import Path\n{lines}"


@pytest.mark.parametrize("what", STRAYS)
def test_a_stray_of_any_process_is_seen(room: Room, what: str) -> None:
    does, seen = STRAYS[what]
    (room.work / "made").touch()
    room.run(sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program(does)!r}])")
    assert [stray for stray in room.strays() if seen in stray]


def test_what_stays_on_this_machine_and_in_its_folders_is_no_stray(room: Room) -> None:
    done = room.run(sys.executable, "-c", program(WITHIN))
    assert done.returncode == 0, done
    room.assert_silent()


def test_a_client_prints_nothing_and_starts_nothing(room: Room) -> None:
    running = "import threading, medreward.clients.trl; assert threading.active_count() == 1"
    done = room.run(sys.executable, "-W", "error", "-c", running)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    room.assert_silent()


def test_serve_with_scores_through_both_doors(room: Room) -> None:
    images = [b64(pictures.png(1)), b64(pictures.dicom(2))]
    body = {"items": [{"image": image, "question": QUESTION, "responses": ["Yes.", "No."]} for image in images]}
    with room.serving() as ports:
        over_rest = httpx.post(f"http://127.0.0.1:{ports['port']}/v1/score", json=body, timeout=60)
        with grpc.insecure_channel(f"127.0.0.1:{ports['grpc_port']}") as channel:
            over_grpc = STUB(channel).Score(to_message(body), timeout=60)
    assert [result["status"] for result in over_rest.json()["results"]] == ["ok"] * 4
    assert len(over_grpc.results) == 4
    room.assert_silent()


def test_score(room: Room) -> None:
    assert "constructed" in room.medreward("score", "--question", QUESTION, "--response", "yes")
    room.assert_silent()


def test_score_file(room: Room) -> None:
    (room.work / "rows.jsonl").write_text('{"question": "Why?", "response": "For rest."}\n')
    room.medreward("score-file", "rows.jsonl", "scored.jsonl")
    assert (room.work / "scored.jsonl").exists()
    room.assert_silent()


def test_bench_run_and_report(room: Room) -> None:
    write_set(room.work / "set", some_cases(6))
    room.medreward("bench", "run", "--data", "set", "--model", "medreward-mini", "--out", "run")
    room.assert_silent()
    (room.work / "run" / "report.html").unlink()
    room.medreward("bench", "report", "run")
    assert (room.work / "run" / "report.html").exists()
    room.assert_silent()
