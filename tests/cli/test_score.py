"""`medreward score`: the same numbers here and on a server, and one line where it cannot be done."""

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from commands import CLEAN, Run, Served, assert_refused, serving
from deploy.certificates import mutual, write_certificates
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow

SERVER_PACKAGES = [
    "fastapi",
    "numpy",
    "pydantic",
    "pydantic_settings",
    "PIL",
    "prometheus_client",
    "starlette",
    "uvicorn",
]
TWO = ["--question", "Is there a fracture?", "--response", "Yes, of a rib.", "--response", "No."]


def test_the_score_in_process_is_the_served_one_to_the_last_bit(run: Run, server: Served, picture: Path) -> None:
    asked = ["score", "--image", picture, *TWO, "--weights", "accuracy=2,overall=1", "--json"]
    here, there = (json.loads(run(*asked, *where).stdout) for where in (["--model", "fake"], ["--url", server.url]))
    assert here["results"] == there["results"]
    assert here["model"] == there["model"]
    logits = here["results"][1]["logits"]
    assert here["results"][1]["reward"] == pytest.approx(2 * logits["accuracy"] + logits["overall"])


def test_the_table_has_a_line_a_response_and_no_colour_when_piped(run: Run, server: Served) -> None:
    done = run("score", *TWO, "--url", server.url)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.strip()[:1] in ("0", "1")]
    assert [row[0] for row in rows] == ["0", "1"]
    assert all(len(row) == 1 + len(DIMENSIONS) + len(["reward", "no_image"]) for row in rows)
    assert "evidence: none" in done.stdout


def test_an_explanation_has_a_line_a_sentence(run: Run, server: Served) -> None:
    asked = ["score", *TWO, "--response", "It is.\nOf a rib.", "--explain"]
    done = run(*asked, "--url", server.url)
    assert done.returncode == 0, done.stderr
    table = done.stdout.partition("adds to the reward")[2]
    rows = [line.split(maxsplit=2) for line in table.splitlines() if line.strip()[:1] in ("0", "1", "2")]
    assert [(row[0], row[2].strip()) for row in rows] == [
        ("0", "Yes, of a rib."),
        ("1", "No."),
        ("2", "It is."),
        ("2", "Of a rib."),
    ]
    here, there = (json.loads(run(*asked, "--json", *to).stdout) for to in (["--model", "fake"], ["--url", server.url]))
    assert [each["explain"] for each in here["results"]] == [each["explain"] for each in there["results"]]
    last = here["results"][2]["explain"][1]
    assert (last["start"], last["end"], list(last["logits"])) == (7, 16, list(DIMENSIONS))
    assert f"{last['reward']:+.3f}" == rows[3][1]


def test_steps_and_thoughts_have_tables_of_their_own(run: Run, server: Served) -> None:
    thought = "<think>Hm.</think> Yes.\n\nOf a rib."
    asked = [
        "score",
        "--question",
        "Is it broken?",
        "--response",
        thought,
        "--steps",
        "paragraphs",
        "--thinking",
        "both",
    ]
    done = run(*asked, "--url", server.url)
    assert done.returncode == 0, done.stderr
    here, there = (json.loads(run(*asked, "--json", *to).stdout) for to in (["--model", "fake"], ["--url", server.url]))
    (one,), (other,) = here["results"], there["results"]
    assert [one[name] for name in ("steps", "without_thinking")] == [
        other[name] for name in ("steps", "without_thinking")
    ]
    assert [step["end"] for step in one["steps"]] == [23, len(thought)]
    tables = done.stdout.partition("reward up to here")[2]
    for step, text in zip(one["steps"], ("<think>Hm.</think> Yes.", "Of a rib."), strict=True):
        assert f"{step['reward']:.3f}   {text}" in tables
    assert f"{one['without_thinking']['reward']:.3f}   thinking_stripped" in tables


def test_a_failed_response_is_named_and_exits_1(run: Run, server: Served) -> None:
    done = run("score", "--question", "Why?", "--response", "fine", "--response", "bad\x01", "--url", server.url)
    assert done.returncode == 1
    assert "bad_text" in done.stdout
    failed = [line for line in done.stdout.splitlines() if "bad_text" in line]
    assert "0." not in failed[0]  # no number where there is none


def test_flags_come_from_the_environment_too(run: Run, server: Served) -> None:
    asked = {"QUESTION": "Why?", "RESPONSE": "one whole text", "URL": server.url, "JSON": "1"}
    done = run("score", **{f"MEDREWARD_{name}": value for name, value in asked.items()})
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["results"]) == 1


def test_a_written_flag_wins_over_the_environment(run: Run, server: Served) -> None:
    done = run("score", *TWO, "--url", server.url, "--json", MEDREWARD_MODEL="not-here")
    assert done.returncode == 0
    done = run("score", *TWO, "--model", "fake", "--json", MEDREWARD_URL="http://127.0.0.1:9")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--url", "http://127.0.0.1:9"], ["cannot reach http://127.0.0.1:9"]),
        (["--url", "http://[", "--json"], ["http://["]),
        (["--model", "not-here"], ["not-here"]),
    ],
)
def test_what_cannot_run_is_one_line_and_exit_2(run: Run, flags: list[str], words: list[str]) -> None:
    assert_refused(run("score", *TWO, *flags), *words)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--url", "127.0.0.1:8000"], ["must begin with http://"]),
        (["--url", "http://127.0.0.1:9", "--model", "fake"], ["exclude each other"]),
        (["--url", "http://127.0.0.1:9", "--dtype", "bf16"], ["exclude each other"]),
        (["--model", "fake", "--dtype", "bf16"], ["fake runs in fp32 alone"]),
        (["--image", "not-here.png"], ["not-here.png", "No such file"]),
        (["--weights", "acuracy=2"], ["'acuracy'", "did you mean accuracy?"]),
        (["--weights", "accuracy=nan"], ["accuracy needs a number"]),
        (["--weights", "accuracy=1,accuracy=2"], ["given twice"]),
        (["--too-long", "cut"], ["cut_middle"]),
        (["--qestion", "x"], ["--question"]),
    ],
)
def test_a_wrong_flag_is_one_line_and_exit_2(run_here: Run, flags: list[str], words: list[str]) -> None:
    assert_refused(run_here("score", *TWO, *flags), *words)


def test_a_refused_request_is_one_line_and_exit_2(run: Run, server: Served) -> None:
    many = [part for n in range(300) for part in ("--response", str(n))]
    assert_refused(run("score", "--question", "Why?", *many, "--url", server.url), "too_many", "256")


def test_another_server_than_ours_is_named(run: Run) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        Thread(target=other.handle_request).start()
        url = f"http://127.0.0.1:{other.server_port}"
        assert_refused(run("score", *TWO, "--url", url), "does not answer as MedReward does")


def test_asking_a_server_needs_none_of_the_servers_packages(server: Served, tmp_path: Path) -> None:
    script = f"import sys; sys.modules.update(dict.fromkeys({SERVER_PACKAGES})); from medreward.cli import main; main()"
    command = [sys.executable, "-c", script, "score", *TWO, "--json"]
    env = CLEAN | {"MEDREWARD_URL": server.url, "MEDREWARD_PORT": "8000"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["results"]) == 2


def test_scoring_here_without_the_servers_packages_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys; sys.modules['pydantic'] = None; from medreward.cli import main; main()"
    command = [sys.executable, "-c", script, "score", *TWO]
    done = subprocess.run(command, capture_output=True, text=True, env=CLEAN, cwd=tmp_path, timeout=300, check=False)
    assert_refused(done, "pydantic", "[cpu]")


def test_a_server_that_asks_for_a_certificate_gets_the_caller_s(run: Run, tmp_path: Path) -> None:
    certificates = write_certificates(tmp_path / "certificates")
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server", *mutual(certificates)) as served:

        def score(who: str | None) -> subprocess.CompletedProcess[str]:
            own = certificates / who if who else None
            shown = ["--client-cert", own / "tls.crt", "--client-key", own / "tls.key"] if own else []
            url = served.url.replace("http://", "https://")
            return run("score", *TWO, "--url", url, *shown, SSL_CERT_FILE=str(certificates / "ca.crt"))

        assert score("client").returncode == 0, score("client")
        for refused in (None, "stranger"):
            assert_refused(score(refused), "unreachable: ")


def test_a_certificate_that_cannot_be_shown_is_refused_before_anything_is_asked(run_here: Run, tmp_path: Path) -> None:
    own = write_certificates(tmp_path / "certificates") / "client"
    asked = ["score", *TWO, "--url", "https://127.0.0.1:1"]
    assert_refused(run_here(*asked, "--client-cert", own / "tls.crt"), "--client-key")
    assert_refused(run_here(*asked, "--client-key", own / "tls.key"), "--client-cert")
    both = ["--client-cert", own / "tls.crt", "--client-key"]
    assert_refused(run_here(*asked, *both, own / "none"), "none", "No such file")
    assert_refused(run_here(*asked, *both, own / "tls.crt"), "tls.crt", "cannot be used")
