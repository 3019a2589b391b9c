"""A judge: both orders, samples, strict votes, what it costs, and what its endpoint may do to us."""

import base64
import json
import time
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

import pictures
from bench.here import Done
from bench.here import medreward_apart as medreward
from bench.sets import some_cases, write_set
from bench.test_runner import lines
from clients.canned import Answer, Canned, Request, canned
from medreward.types import DIMENSIONS

pytestmark = pytest.mark.slow


def body_of(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(request.body)
    return body


def said(text: str | None, usage: dict[str, int] | None = None) -> Answer:
    reply: dict[str, Any] = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return 200, {}, msgspec.json.encode(reply | ({"usage": usage} if usage else {}))


def prompt_of(request: Request) -> str:
    text: str = body_of(request)["messages"][0]["content"][1]["text"]
    return text


def shown(request: Request) -> str:
    """The order: AB or BA."""
    prompt = prompt_of(request)
    return "AB" if prompt.index("first answer") < prompt.index("second answer") else "BA"


def verdict(letter: str) -> str:
    return json.dumps(dict.fromkeys(DIMENSIONS, letter))


def prefers_the_second_text(request: Request) -> Answer:
    """A judge that reads: it names the letter under which the better text stands."""
    return said(verdict("B" if shown(request) == "AB" else "A"), {"prompt_tokens": 100, "completion_tokens": 10})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", some_cases(6))


async def judged(server: Canned, data: Path, out: Path, *flags: str, **variables: str) -> Done:
    base = ("--judge", f"{server.url}/v1", "--judge-model", "a-judge", "--concurrency", "3", "--json")
    return await medreward("bench", "run", "--data", data, "--out", out, *base, *flags, **variables)


async def test_each_case_is_shown_in_both_orders_with_its_image_and_counted_in_its_own(
    data: Path, tmp_path: Path
) -> None:
    async with canned(prefers_the_second_text) as server:
        done = await judged(
            server, data, tmp_path / "run", "--price-in", "2", "--price-out", "10", MEDREWARD_JUDGE_KEY="k"
        )
        assert done.code == 0, done
        assert Counter(map(shown, server.asked)) == {"AB": 6, "BA": 6}
        assert {request.path for request in server.asked} == {"/v1/chat/completions"}
        assert {request.headers["authorization"] for request in server.asked} == {"Bearer k"}
        images = {body_of(request)["messages"][0]["content"][0]["image_url"]["url"] for request in server.asked}
        assert images == {
            f"data:image/png;base64,{base64.b64encode(pictures.png(n, 12, 8)).decode()}" for n in range(6)
        }
        assert all(f"- {dimension}: " in prompt_of(request) for request in server.asked for dimension in DIMENSIONS)
        assert "seed" not in body_of(server.asked[0])
    rows = lines(tmp_path / "run" / "predictions.jsonl")
    assert {tuple(row["choices"].values()) for row in rows} == {("B",) * 6}
    assert {row["logits"] for row in rows} == {None}
    summary = json.loads(done.out)
    assert summary["judge"]["order"]["overall"] == {"n": 6, "consistent": 6, "consistency": 1.0, "first": 0.5}
    run = json.loads((tmp_path / "run" / "run.json").read_text())
    assert run["totals"] == {
        "cases": 6,
        "calls": 12,
        "calls_without_usage": 0,
        "prompt_tokens": 1200,
        "completion_tokens": 120,
        "cost": 0.0036,
    }
    assert run["fingerprint"] is None
    assert '"k"' not in json.dumps(run)


async def test_without_images_a_judge_is_sent_none(data: Path, tmp_path: Path) -> None:
    async with canned(lambda request: said(verdict("A"))) as server:
        done = await judged(server, data, tmp_path / "run", "--images", "none")
        assert done.code == 0, done
        contents = [body_of(request)["messages"][0]["content"] for request in server.asked]
    assert {part["type"] for content in contents for part in content} == {"text"}


async def test_a_judge_that_always_takes_the_first_has_only_ties_but_an_official_figure(
    data: Path, tmp_path: Path
) -> None:
    async with canned(lambda request: said(verdict("A"))) as server:
        summary = json.loads((await judged(server, data, tmp_path / "run")).out)
    overall = summary["strict"]["micro"]["overall"]
    assert (overall["ties"], overall["accuracy"], overall["correct"]) == (6, 0.5, 0)
    assert summary["judge"]["order"]["overall"] == {"n": 6, "consistent": 0, "consistency": 0.0, "first": 1.0}
    labels = [case.labels["overall"] for case in some_cases(6) if case.organ == "lung"]
    assert summary["official"]["lung"]["overall"] == round(labels.count("A") / len(labels), 4)


@pytest.mark.parametrize("text", ["I cannot help with a diagnosis.", None, verdict("A")[:-9]])
async def test_a_refusal_is_no_vote_except_for_the_official_figure(
    data: Path, tmp_path: Path, text: str | None
) -> None:
    async with canned(lambda request: said(text)) as server:
        summary = json.loads((await judged(server, data, tmp_path / "run")).out)
    overall = summary["strict"]["micro"]["overall"]
    assert (overall["n"], overall["unanswered"], overall["accuracy"]) == (6, 6, 0.0)
    assert summary["statuses"] == {"judge_unparseable": 6}
    assert summary["judge"]["unreadable"] == 12
    best = max(max(table.values()) for table in summary["official"].values())
    assert (best > 0) == (text is not None and "cannot" in text)


async def test_samples_vote_and_are_seeded(data: Path, tmp_path: Path) -> None:
    def two_of_three(request: Request) -> Answer:
        """In each order the first two samples find the better text, the third one cannot be read."""
        return said("?") if body_of(request)["seed"] == 2 else prefers_the_second_text(request)

    async with canned(two_of_three) as server:
        done = await judged(server, data, tmp_path / "run", "--samples", "3", "--temperature", "0.7")
        assert Counter(body_of(request)["seed"] for request in server.asked) == {0: 12, 1: 12, 2: 12}
        assert {body_of(request)["temperature"] for request in server.asked} == {0.7}
    summary = json.loads(done.out)
    assert summary["statuses"] == {"ok": 6}
    assert summary["judge"]["unreadable"] == 12
    first = lines(tmp_path / "run" / "predictions.jsonl")[0]
    assert set(first["choices"].values()) == {"B"}
    assert [reply["text"] for reply in first["replies"]][2] == "?"


async def test_an_endpoint_without_structured_output_is_asked_without_and_then_never_with_it(
    data: Path, tmp_path: Path
) -> None:
    refused = 0

    def plain(request: Request) -> Answer:
        nonlocal refused
        if "response_format" in body_of(request):
            refused += 1
            return 400, {}, b'{"error": {"message": "response_format is not supported"}}'
        return prefers_the_second_text(request)

    async with canned(plain) as server:
        done = await judged(server, data, tmp_path / "run")
    assert json.loads(done.out)["statuses"] == {"ok": 6}
    assert 1 <= refused <= 3  # those on their way at once


async def test_a_case_that_the_endpoint_refuses_is_unanswered_and_its_neighbours_are_not(
    data: Path, tmp_path: Path
) -> None:
    def picky(request: Request) -> Answer:
        refuses = "What is seen in 3?" in prompt_of(request)
        return (400, {}, b"{}") if refuses else prefers_the_second_text(request)

    async with canned(picky) as server:
        done = await judged(server, data, tmp_path / "run")
        formats = [
            "response_format" in body_of(request) for request in server.asked if "in 3?" not in prompt_of(request)
        ]
    assert json.loads(done.out)["statuses"] == {"http_400": 1, "ok": 5}
    assert all(formats)


async def test_an_overloaded_endpoint_is_asked_again_when_it_says(data: Path, tmp_path: Path) -> None:
    times: list[float] = []

    def busy_once(request: Request) -> Answer:
        times.append(time.monotonic())
        return (429, {"Retry-After": "1"}, b"") if len(times) == 1 else prefers_the_second_text(request)

    async with canned(busy_once) as server:
        done = await judged(server, data, tmp_path / "run", "--concurrency", "1")
    assert json.loads(done.out)["statuses"] == {"ok": 6}
    assert times[1] - times[0] >= 1


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ((401, {}, b"no such key"), "401: no such key"),
        ((404, {}, b"no such model"), "404"),
        ((503, {}, b""), "503"),
        ((200, {}, b"<html>"), "does not answer as a chat endpoint"),
    ],
)
async def test_an_endpoint_that_answers_nobody_stops_the_run_in_one_line(
    data: Path, tmp_path: Path, answer: Answer, word: str
) -> None:
    async with canned(lambda request: answer) as server:
        done = await judged(server, data, tmp_path / "run", "--retry-seconds", "0")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert word in done.err


async def test_the_users_own_prompt_is_filled_in_one_pass_and_decides_the_run(data: Path, tmp_path: Path) -> None:
    (case,) = some_cases(1)
    tricky = replace(case, answers=("first answer {answer_b} {x}", "second answer {question}"))
    folder, prompt = write_set(tmp_path / "one", [tricky]), tmp_path / "prompt.txt"
    prompt.write_text('Q {question} 1 {answer_a} 2 {answer_b} {"json": 1}')
    flags = ("--judge-prompt", str(prompt))
    async with canned(prefers_the_second_text) as server:
        assert (await judged(server, folder, tmp_path / "run", *flags)).code == 0
        first = next(prompt_of(request) for request in server.asked if shown(request) == "AB")
        assert first == 'Q What is seen in 0? 1 first answer {answer_b} {x} 2 second answer {question} {"json": 1}'
        other = await judged(server, folder, tmp_path / "run")
        assert (other.code, "settings (prompt)" in other.err) == (2, True)
        prompt.write_text("no places")
        assert "{question}" in (await judged(server, folder, tmp_path / "other", *flags)).err


async def test_an_image_of_a_kind_that_endpoints_do_not_take_is_sent_as_png(tmp_path: Path) -> None:
    bitmap = BytesIO()
    Image.fromarray(pictures.pixels()).save(bitmap, "BMP")
    folder = write_set(tmp_path / "set", [replace(case, image=bitmap.getvalue()) for case in some_cases(1)])
    async with canned(prefers_the_second_text) as server:
        assert (await judged(server, folder, tmp_path / "run")).code == 0
        url = body_of(server.asked[0])["messages"][0]["content"][0]["image_url"]["url"]
    with Image.open(BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,")))) as sent:
        assert sent.tobytes() == pictures.pixels().tobytes()
