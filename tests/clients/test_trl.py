"""TRL's reward functions: against a real server, as TRL 1.x calls them, and in a real training run."""

import asyncio
import copy
import importlib.util
import inspect
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from multiprocessing.reduction import ForkingPickler as Pickler
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pictures
from cases import b64
from commands import CLEAN, Served, serving
from medreward.clients import Client, NotScored, Score
from medreward.clients.images import image_bytes
from medreward.clients.shaping import Shaping
from medreward.clients.trl import reward_funcs
from medreward.types import DIMENSIONS

QUESTION = "Is there a fracture?"
COMPLETIONS = ["Yes.", "No, there is none.", "A nodule.", "Yes."]
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}]
WEIGHTS = {"accuracy": 2.0, "overall": -0.5}


class Counting(Client):
    calls = 0

    def score_many(self, *triples: Any, **how: Any) -> list[Score]:
        self.calls += 1
        return super().score_many(*triples, **how)


@pytest.fixture(scope="module")
def server(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("trl-server"), "--model", str(tiny_folder)) as served:
        yield served


@pytest.fixture
def client(server: Served) -> Iterator[Counting]:
    with Counting(server.url) as client:
        yield client


def picture(seed: int = 0) -> Image.Image:
    """What a data set's row holds: a new object each time."""
    return Image.open(BytesIO(pictures.png(seed)))


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def answers(client: Client, texts: list[str], seed: int = 0, **how: Any) -> list[Score]:
    return client.score(pictures.png(seed), QUESTION, texts, **how)


def test_one_weighted_reward_is_the_servers(client: Counting) -> None:
    (reward,) = reward_funcs(client, weights=WEIGHTS)
    prompts, images = [TALK] * 4, [picture() for _ in COMPLETIONS]
    rewards = reward(prompts, [said(text) for text in COMPLETIONS], image=images, completion_ids=[[1]] * 4)
    assert rewards == [score.reward for score in answers(client, COMPLETIONS, weights=WEIGHTS)]
    assert len(set(rewards)) == 3
    assert reward.__name__ == "medreward"


def test_without_weights_they_are_the_models(client: Counting) -> None:
    (reward,) = reward_funcs(client)
    assert reward([QUESTION], ["No."], image=[picture()]) == [answers(client, ["No."])[0].reward]


def test_six_functions_share_one_call(client: Counting) -> None:
    functions = reward_funcs(client, per_dimension=True)
    prompts, images = [QUESTION] * 4, [picture() for _ in COMPLETIONS]
    rewards = [function(prompts, COMPLETIONS, image=images) for function in functions]
    assert client.calls == 1
    assert [function.__name__ for function in functions] == list(DIMENSIONS)
    logits = [score.logits or {} for score in answers(client, COMPLETIONS)]
    assert rewards == [[six[dimension] for six in logits] for dimension in DIMENSIONS]


def test_the_next_batch_is_asked_again(client: Counting) -> None:
    functions = reward_funcs(client, per_dimension=True)
    for seed in (0, 1):
        prompts, completions = [QUESTION], ["Yes."]  # equal to the last ones, about another image
        rewards = [function(prompts, completions, image=[picture(seed)]) for function in functions]
        six = answers(client, ["Yes."], seed)[0].logits or {}
        assert rewards == [[six[dimension]] for dimension in DIMENSIONS]
    assert client.calls == 2


async def test_the_async_form_shares_one_call_too(client: Counting) -> None:
    functions: list[Any] = reward_funcs(client, per_dimension=True, asynchronous=True)
    assert all(inspect.iscoroutinefunction(function.__call__) for function in functions)  # as TRL finds out
    prompts, images = [QUESTION] * 4, [picture() for _ in COMPLETIONS]
    rewards = await asyncio.gather(*(function(prompts, COMPLETIONS, image=images) for function in functions))
    assert client.calls == 1
    plain = reward_funcs(client, per_dimension=True)
    assert rewards == [function(prompts, COMPLETIONS, image=images) for function in plain]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("image", picture()),
        ("images", [picture()]),
        ("images", [None, picture()]),
        ("image", {"bytes": pictures.png(), "path": None}),
        ("image", pictures.pixels()),
    ],
)
def test_an_image_may_come_in_many_ways(client: Counting, column: str, value: Any) -> None:
    (reward,) = reward_funcs(client)
    assert reward([TALK, TALK], COMPLETIONS[:2], **{column: [value, value]}) == [
        score.reward for score in answers(client, COMPLETIONS[:2])
    ]


def test_an_image_in_the_prompt_is_found(client: Counting) -> None:
    """With images TRL hands over prompts of parts, the image among them."""
    parts: list[dict[str, Any]] = [{"type": "image", "image": picture()}, {"type": "text", "text": QUESTION}]
    (reward,) = reward_funcs(client)
    expected = [score.reward for score in answers(client, ["No."])]
    assert reward([[{"role": "user", "content": parts}]], [said("No.")]) == expected
    assert reward([[{"role": "user", "content": parts}]], [said("No.")], image=[picture()]) == expected


def test_each_row_keeps_its_own_image(client: Counting) -> None:
    (reward,) = reward_funcs(client)
    seeds = [0, 0, 1, 0]
    rewards = reward([QUESTION] * 4, ["No."] * 4, image=[picture(seed) for seed in seeds])
    assert rewards == [answers(client, ["No."], seed)[0].reward for seed in seeds]


def test_named_columns(client: Counting) -> None:
    (reward,) = reward_funcs(client, image_column="scan", question_column="asked")
    row = {"scan": [picture()], "asked": [QUESTION]}
    assert reward(["Think first. " + QUESTION], ["No."], **row) == [answers(client, ["No."])[0].reward]
    for missing in row:
        with pytest.raises(ValueError, match=missing):
            reward([QUESTION], ["No."], **{name: value for name, value in row.items() if name != missing})


def test_the_question_is_the_last_user_turn(client: Counting) -> None:
    earlier = [{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "A chest X-ray."}]
    (reward,) = reward_funcs(client)
    expected = [answers(client, ["No."])[0].reward]
    assert reward([earlier + TALK], ["No."], image=[picture()]) == expected
    prefilled = [*earlier, *TALK, {"role": "assistant", "content": "N"}]
    assert reward([prefilled], [said("No.")], image=[picture()]) == expected


def test_the_response_is_the_last_assistant_turn(client: Counting) -> None:
    calls = {"role": "assistant", "tool_calls": [{"function": {"name": "zoom", "arguments": {}}}]}
    run = [calls, {"role": "tool", "content": "a line"}, *said("Yes.")]
    (reward,) = reward_funcs(client)
    assert reward([TALK], [run], image=[picture()]) == [answers(client, ["Yes."])[0].reward]


def test_thinking_may_be_left_out(client: Counting) -> None:
    (reward,) = reward_funcs(client, thinking="strip")
    thought = reward([QUESTION], ["<think>A line?</think>Yes."], image=[picture()])
    assert thought == [answers(client, ["Yes."])[0].reward]


def test_what_cannot_be_scored_is_none_and_one_line(
    client: Counting, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    broken = Image.open(BytesIO(pictures.cut_short(pictures.png())))
    images = [[picture()], [picture(), picture(1)], [broken], [str(tmp_path / "gone.png")], [picture()]]
    completions = ["No.", "No.", "No.", "No.", "\x00"]
    metrics: dict[str, float] = {}
    extra: dict[str, list[Any]] = {}
    told = {"log_metric": metrics.__setitem__, "log_extra": extra.__setitem__}
    prompts = [QUESTION] * 5
    functions = reward_funcs(client, per_dimension=True)
    with caplog.at_level(logging.WARNING, "medreward"):
        rewards = [function(prompts, completions, images=images, **told) for function in functions]
    logits = answers(client, ["No."])[0].logits or {}
    assert rewards == [[logits[dimension], None, None, None, None] for dimension in DIMENSIONS]
    assert caplog.messages == ["4 of 5 responses not scored: image_invalid 2, unsupported_field 1, bad_text 1"]
    assert metrics == {"medreward/unscored": 0.8}
    assert extra == {
        "medreward_error": [None, "unsupported_field", "image_invalid", "image_invalid", "bad_text"],
    }


def test_the_trainers_log_has_the_parts_of_the_reward(client: Counting) -> None:
    metrics: dict[str, float] = {}
    (reward,) = reward_funcs(client)
    reward([QUESTION] * 4, COMPLETIONS, image=[picture()] * 4, log_metric=metrics.__setitem__)
    logits = [score.logits or {} for score in answers(client, COMPLETIONS)]
    means = {f"medreward/{d}": pytest.approx(np.mean([six[d] for six in logits])) for d in DIMENSIONS}
    assert metrics == means | {"medreward/unscored": 0.0}


def test_strict_stops_the_run(server: Served) -> None:
    reward: Any
    (reward,) = reward_funcs(server.url, strict=True)
    with pytest.raises(NotScored, match="unsupported_field"):
        reward([QUESTION] * 2, ["No."] * 2, images=[[picture()], [picture(), picture(1)]])
    with pytest.raises(NotScored, match="bad_text"):
        reward([QUESTION], ["\x00"], image=[picture()])
    reward.batches.client.close()


def test_shaping_knows_which_answers_belong_together(client: Counting) -> None:
    (plain,), (shaped,) = reward_funcs(client), reward_funcs(client, shaping=Shaping(normalise_group=True))
    completions = [f"answer {n}" for n in range(6)]
    images = [picture(n % 2) for n in range(6)]
    raw = plain([QUESTION] * 6, completions, image=images)
    expected = np.empty(6)
    for seed in (0, 1):
        group = np.array(raw[seed::2])
        expected[seed::2] = (group - group.mean()) / group.std(ddof=1)
    assert shaped([QUESTION] * 6, completions, image=images) == pytest.approx(list(expected))


def test_the_uncertainty_penalty_of_a_dimension_is_its_own(client: Counting) -> None:
    first, *_ = reward_funcs(client, per_dimension=True, shaping=Shaping(uncertainty_penalty=2))
    score = answers(client, ["No."])[0]
    assert score.logits
    assert score.uncertainty
    logit, doubt = score.logits["accuracy"], score.uncertainty["accuracy"]
    assert logit is not None
    assert doubt is not None
    expected = logit - 2 * doubt
    assert first([QUESTION], ["No."], image=[picture()]) == [pytest.approx(expected)]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda function: Pickler.loads(Pickler.dumps(function))])
def test_a_copy_scores_the_same(server: Served, copied: Any) -> None:
    original: Any
    (original,) = reward_funcs(server.url, weights=WEIGHTS, timeout=20)
    duplicate = copied(original)
    try:
        rewards = [function([QUESTION], ["No."], image=[picture()]) for function in (original, duplicate)]
        assert rewards[0] == rewards[1] != [None]
        assert duplicate.__name__ == original.__name__
    finally:
        original.batches.client.close()
        duplicate.batches.client.close()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"per_dimension": True, "weights": WEIGHTS}, "reward_weights"),
        ({"per_dimension": True, "shaping": Shaping(normalise_dimensions=True)}, "normalize_then_sum"),
        ({"shaping": Shaping(normalise_dimensions=True)}, "needs weights"),
        ({"thinking": "loud"}, "loud"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_training(client: Counting, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reward_funcs(client, **wrong)


# a real run


real = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra `trl`")
RUN = Path(__file__).with_name("trl_run.py")


def training(url: str, out: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(RUN), url, str(out), *flags]
    env = CLEAN | {"PYTHONPATH": str(RUN.parents[1])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def finished(run: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """The trainer's log."""
    out, err = run.communicate(timeout=600)
    assert run.returncode == 0, err
    log: list[dict[str, Any]] = json.loads(out.splitlines()[-1])
    return log


def logged(out: Path) -> list[dict[str, Any]]:
    """What the trainer wrote down about each completion."""
    return [row for path in sorted((out / "completions").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def texts(row: dict[str, Any]) -> tuple[int, str, str]:
    (prompt,), (completion,) = row["prompt"], row["completion"]
    question = "".join(part["text"] or "" for part in prompt["content"] if part["type"] == "text")
    return int(question.split()[1]), question, completion["content"]


def float32(number: float) -> float:
    """As a trainer holds it."""
    return float(np.float32(number))


def asked(url: str, rows: list[dict[str, Any]], file: Callable[[int], bytes] = pictures.png) -> list[dict[str, Any]]:
    """The answers of /score itself, asked without our client, about the data set's own files."""
    items = [
        {"image": b64(file(number)), "question": question, "response": response}
        for number, question, response in map(texts, rows)
    ]
    reply = httpx.post(f"{url}/score", json={"items": items}, timeout=120).raise_for_status().json()
    results: list[dict[str, Any]] = reply["results"]
    return results


@real
@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--steps", "4"], ["--trainer", "rloo", "--asynchronous"]])
def test_trl_logs_the_rewards_that_score_gives(server: Served, tmp_path: Path, flags: list[str]) -> None:
    log = finished(training(server.url, tmp_path, *flags))
    rows = logged(tmp_path)
    assert len(rows) >= 24
    assert [row["medreward"] for row in rows] == [float32(score["reward"]) for score in asked(server.url, rows)]
    assert len({row["medreward"] for row in rows}) > 8
    assert {step["medreward/unscored"] for step in log if "reward" in step} == {0}


@real
@pytest.mark.slow
def test_trl_logs_six_dimensions_and_leaves_out_what_was_not_scored(server: Served, tmp_path: Path) -> None:
    """Every third row has two images, which no model reads yet: no reward, and no advantage either way."""
    log = finished(training(server.url, tmp_path, "--images", "--per-dimension", "--asynchronous"))
    rows = logged(tmp_path)
    unscored = [row for row in rows if texts(row)[0] % 3 == 0]
    assert len(unscored) == 8
    for row in unscored:
        assert all(row[dimension] is None for dimension in DIMENSIONS)
        assert row["advantage"] == 0
        assert row["medreward_error"] == "unsupported_field"
    scored = [row for row in rows if texts(row)[0] % 3]
    logits = [score["logits"] for score in asked(server.url, scored)]
    for dimension in DIMENSIONS:
        assert [row[dimension] for row in scored] == [float32(six[dimension]) for six in logits]
    assert all(row["advantage"] for row in scored)
    assert sum(step["medreward/unscored"] for step in log if "reward" in step) == 1  # 8 answers, in steps of 8


@real
@pytest.mark.slow
def test_a_server_killed_in_the_middle_costs_retries_and_nothing_else(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("first", "second", "run")]
    for folder in folders:
        folder.mkdir()
    slow = ("--fake-delay-ms", "400")  # so that it is hit while it scores
    with serving(folders[0], *slow) as first:
        run = training(first.url, folders[2], "--steps", "6")
        await_step(run, 2)
        await_call(first)
        first.process.kill()
        first.process.wait()
    time.sleep(1)  # time for tries that fail
    with serving(folders[1], *slow, "--port", first.url.rpartition(":")[2]) as second:
        log = finished(run)
        rows = logged(folders[2])
        expected = [float32(score["reward"]) for score in asked(second.url, rows, as_sent)]
    assert len(rows) == 6 * 8
    assert [row["medreward"] for row in rows] == expected
    assert 0 not in expected
    assert {step["medreward/unscored"] for step in log if "reward" in step} == {0}
    assert max(step["step_time"] for step in log if "reward" in step) > 1


def as_sent(number: int) -> bytes:
    """The fake model's numbers come from a file's bytes, and the client makes a file of the trainer's pixels."""
    file = image_bytes(picture(number))
    assert file is not None
    return file


def await_step(run: subprocess.Popen[str], step: int) -> None:
    assert run.stdout is not None
    for line in run.stdout:
        if line == f"step {step}\n":
            return
    raise AssertionError(run.communicate()[1])


def await_call(served: Served) -> None:
    for _ in range(3000):
        if httpx.get(f"{served.admin_url}/admin/state", timeout=60).json()["requests_in_flight"]:
            return
        time.sleep(0.01)
    raise AssertionError("no call came")
