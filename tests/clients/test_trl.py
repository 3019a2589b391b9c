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
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.reduction import ForkingPickler as Pickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pictures
from cases import b64
from clients.canned import canned, right_answer
from commands import CLEAN, Served, serving
from medreward.clients import Client, NotScored, Patience, Refused, Score, Unreachable, VersionChanged
from medreward.clients.images import image_bytes
from medreward.clients.shaping import Shaping
from medreward.clients.trl import reward_funcs
from medreward.types import DIMENSIONS, Flag

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


def test_a_batch_that_was_changed_in_place_is_asked_again(client: Counting) -> None:
    """The very same lists and arrays, with something else in them."""
    first, second, *_ = reward_funcs(client, per_dimension=True)
    pixels = pictures.pixels()
    prompts, completions, images = [QUESTION], ["Yes."], [pixels]

    def reward_of(function: Any, dimension: str) -> None:
        (score,) = client.score(pixels, prompts[0], completions)
        assert function(prompts, completions, image=images) == [(score.logits or {})[dimension]]

    reward_of(first, "accuracy")
    completions[0] = "No."
    reward_of(second, "relevance")
    pixels[:] = 255 - pixels
    reward_of(first, "accuracy")
    prompts[0] = "Is there a nodule?"
    reward_of(second, "relevance")
    assert client.calls == 4


def test_another_image_beside_the_same_lists_is_asked_about(client: Counting) -> None:
    first, second, *_ = reward_funcs(client, per_dimension=True)
    prompts, completions, image = [QUESTION], ["Yes."], picture().convert("L")
    first(prompts, completions, image=[image])
    image.paste(0, (0, 0, 4, 4))
    (score,) = client.score(image, QUESTION, completions)
    assert second(prompts, completions, image=[image]) == [(score.logits or {})["relevance"]]


def test_a_step_equal_to_the_last_one_has_its_own_scores_and_log(client: Counting) -> None:
    """A trainer's table of completions has one row for each, and what failed once is asked again."""
    functions = reward_funcs(client, per_dimension=True)
    prompts, completions, images = [QUESTION] * 2, ["Yes.", "No."], [picture()] * 2
    errors: list[Any] = []
    told = {"log_extra": lambda column, values: errors.extend(values) if column == "medreward_error" else None}
    for _ in range(2):
        for function in functions:
            function(prompts, completions, image=images, **told)
    assert client.calls == 2
    assert errors == [None] * 4


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


SHOWN: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]


def test_where_images_were_looked_for_is_said_once(client: Counting, caplog: pytest.LogCaptureFixture) -> None:
    (reward,) = reward_funcs(client)
    metrics: dict[str, float] = {}
    for text in ("No.", "Yes."):
        rewards = reward([TALK], [text], picture=[picture()], completion_ids=[[1]], log_metric=metrics.__setitem__)
        assert rewards == [client.score(None, QUESTION, [text])[0].reward]
        assert metrics["medreward/flags/no_image"] == 1
    (said,) = [message for message in caplog.messages if "no turns" not in message]
    assert "the columns images and image" in said
    assert "The data set's columns: picture." in said
    assert "image_column" in said
    caplog.clear()
    reward_funcs(client, allow_text_only=True)[0]([TALK], ["No."], picture=[picture()])
    reward_funcs(client)[0]([TALK] * 2, ["No."] * 2, image=[picture(), None])  # a data set that has both
    assert caplog.messages == []


def test_a_prompt_that_shows_an_image_is_not_scored_without_it(client: Counting) -> None:
    rows: dict[str, Any] = {"picture": [picture()] * 2}
    (reward,) = reward_funcs(client)
    with pytest.raises(ValueError, match="row 1 shows an image") as refused:
        reward([TALK, SHOWN], ["No."] * 2, **rows)
    for told in ("images and image", "columns: picture", "image_column", "allow_text_only=True"):
        assert told in str(refused.value)
    with pytest.raises(ValueError, match="Looked in: the column scan"):
        reward_funcs(client, image_column="scan")[0]([SHOWN], ["No."], scan=[None])
    assert client.calls == 0
    (allowing,) = reward_funcs(client, allow_text_only=True)
    assert allowing([SHOWN], ["No."]) == [client.score(None, QUESTION, ["No."])[0].reward]
    (named,) = reward_funcs(client, image_column="picture")
    assert named([SHOWN] * 2, ["No."] * 2, **rows) == [answers(client, ["No."])[0].reward] * 2


def test_a_prompt_may_name_its_images_file(client: Counting, tmp_path: Path) -> None:
    file = tmp_path / "scan.png"
    file.write_bytes(pictures.png())
    parts = [{"type": "image", "path": str(file), "image": None}, {"type": "text", "text": QUESTION}]
    (reward,) = reward_funcs(client)
    expected = [answers(client, ["No."])[0].reward]
    assert reward([[{"role": "user", "content": parts}]], ["No."]) == expected


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
    assert metrics["medreward/unscored"] == 0.8
    assert extra["medreward_error"] == [None, "unsupported_field", "image_invalid", "image_invalid", "bad_text"]


def test_the_trainers_log_has_the_parts_of_the_reward(client: Counting) -> None:
    metrics: dict[str, float] = {}
    extra: dict[str, list[Any]] = {}
    (reward,) = reward_funcs(client)
    told = {"log_metric": metrics.__setitem__, "log_extra": extra.__setitem__}
    completions = [*COMPLETIONS[:3], ""]
    rewards = reward([QUESTION] * 4, completions, image=[picture()] * 3 + [None], **told)
    scores = [*answers(client, completions[:3]), *client.score(None, QUESTION, [""])]
    means = {f"medreward/{d}": np.mean([(score.logits or {})[d] for score in scores]) for d in DIMENSIONS}
    doubts = {f"medreward/uncertainty/{d}": np.mean([(s.uncertainty or {})[d] for s in scores]) for d in DIMENSIONS}
    flags = {f"medreward/flags/{flag}": 0.0 for flag in Flag}
    flags |= {"medreward/flags/no_image": 0.25, "medreward/flags/empty_response": 0.25}
    of_length = np.corrcoef(rewards[:3], [len(text) for text in completions[:3]])[0, 1]  # the fourth is a group of one
    expected = means | doubts | flags | {"medreward/unscored": 0.0, "medreward/length_correlation": of_length}
    assert metrics == pytest.approx(expected)
    assert extra == {
        "medreward_error": [None] * 4,
        "medreward_flags": ["", "", "", "no_image, empty_response"],
        "medreward_fingerprint": [client.fingerprint] * 4,
    }


def test_the_correlation_with_length_is_each_dimensions_own(client: Counting) -> None:
    metrics: dict[str, float] = {}
    functions = reward_funcs(client, per_dimension=True)
    prompts, images = [QUESTION] * 4, [picture()] * 4
    rewards = [function(prompts, COMPLETIONS, image=images, log_metric=metrics.__setitem__) for function in functions]
    lengths = [len(text) for text in COMPLETIONS]
    for dimension, own in zip(DIMENSIONS, rewards, strict=True):
        logged = metrics[f"medreward/length_correlation/{dimension}"]
        assert logged == pytest.approx(np.corrcoef(own, lengths)[0, 1])


def test_cut_responses_are_counted_and_said(client: Counting, caplog: pytest.LogCaptureFixture) -> None:
    metrics: dict[str, float] = {}
    (reward,) = reward_funcs(client, too_long="cut_middle")
    told = {"log_metric": metrics.__setitem__}
    reward([QUESTION] * 2, ["word " * 2000, "No."], image=[picture()] * 2, **told)
    assert metrics["medreward/flags/cut_middle"] == 0.5
    assert "1 of 2 responses were cut in their middle, which may raise their rewards" in caplog.messages


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
        ({"shaping": Shaping(normalise_dimensions=True)}, "give it weights"),
        ({"thinking": "loud"}, "loud"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_training(client: Counting, wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        reward_funcs(client, **wrong)


# which server, and which model


def test_a_wrong_url_stops_the_run_at_once() -> None:
    reward: Any
    (reward,) = reward_funcs("http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9"):
        reward([QUESTION], ["No."], image=[picture()])
    assert time.monotonic() - started < 20  # a tenth of a second
    reward.batches.client.close()


async def test_a_server_that_never_spoke_medrewards_words_stops_the_run() -> None:
    page = (200, {"Content-Type": "text/html"}, b"<html>Welcome</html>")
    async with canned(lambda _: page) as server:
        functions = await asyncio.to_thread(reward_funcs, server.url, patience=Patience(seconds=0.5))
        with pytest.raises(Refused, match="no score at all yet"):
            await asyncio.to_thread(functions[0], [QUESTION], ["No."], image=[picture()])
        await asyncio.to_thread(functions[0].batches.client.close)


@dataclass
class State:
    """A trainer's, as far as a reward function meets it."""

    log_history: list[dict[str, Any]] = field(default_factory=list)
    global_step: int = 0
    is_world_process_zero: bool = True


class Trainer:
    """It hands out its own method, as TRL's do."""

    def __init__(self, folder: Path) -> None:
        self.args = SimpleNamespace(output_dir=str(folder))

    def log_metric(self, name: str, value: float) -> None: ...


async def run_against(fingerprint: str, state: State, folder: Path, **options: Any) -> None:
    """One step of a run whose server has that model."""
    async with canned(lambda request: right_answer(request, fingerprint)) as server:
        functions = await asyncio.to_thread(reward_funcs, server.url, **options)
        told = {"trainer_state": state, "log_metric": Trainer(folder).log_metric}
        try:
            await asyncio.to_thread(functions[0], [QUESTION], ["No."], image=[picture()], **told)
        finally:
            await asyncio.to_thread(functions[0].batches.client.close)


async def test_a_run_notes_its_model_in_the_log_and_beside_its_checkpoints(tmp_path: Path) -> None:
    state = State()
    await run_against("sha256:a", state, tmp_path)
    await run_against("sha256:a", state, tmp_path)
    noted = [{"medreward/fingerprint": "sha256:a", "medreward/model": "m 1", "step": 0}]
    assert state.log_history == noted
    assert json.loads((tmp_path / "medreward.json").read_text()) == noted


async def test_a_resumed_run_refuses_another_model_until_it_is_accepted(tmp_path: Path) -> None:
    state = State()
    await run_against("sha256:a", state, tmp_path)
    state.log_history.append({"loss": 1.0, "step": 5})
    state.global_step = 5
    with pytest.raises(VersionChanged) as refused:
        await run_against("sha256:b", state, tmp_path)
    for told in ("m 1 (sha256:a)", "m 1 (sha256:b)", "pin='sha256:b'", "pin=False"):
        assert told in str(refused.value)
    await run_against("sha256:b", state, tmp_path, pin="sha256:b")
    fingerprints = [(entry["medreward/fingerprint"], entry["step"]) for entry in noted_in(tmp_path)]
    assert fingerprints == [("sha256:a", 0), ("sha256:b", 5)]
    await run_against("sha256:b", state, tmp_path)  # accepted once is accepted
    with pytest.raises(VersionChanged):
        await run_against("sha256:a", state, tmp_path)
    await run_against("sha256:c", state, tmp_path, pin=False)


def noted_in(folder: Path) -> list[dict[str, Any]]:
    noted: list[dict[str, Any]] = json.loads((folder / "medreward.json").read_text())
    return noted


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_only_the_main_process_writes(tmp_path: Path) -> None:
    await run_against("sha256:a", State(is_world_process_zero=False), tmp_path)
    assert files(tmp_path) == []


# a real run


real = pytest.mark.skipif(importlib.util.find_spec("trl") is None, reason="needs the extra `trl`")
RUN = Path(__file__).with_name("trl_run.py")


def training(url: str, out: Path, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(RUN), url, str(out), *flags]
    env = CLEAN | {"PYTHONPATH": str(RUN.parents[1] / "support")}
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
def test_trl_logs_the_rewards_of_conversations_that_score_gives(tmp_path: Path) -> None:
    """Of prompts with a system turn, an earlier turn with an image, and a question with another."""
    from backends.torch_vlm.checkpoints import write_checkpoint  # loads torch

    folders = [tmp_path / name for name in ("model", "server", "run")]
    for folder in folders[1:]:
        folder.mkdir()
    write_checkpoint(folders[0], "qwen2_5_vl")
    with serving(
        folders[1], "--model", str(folders[0]), "--device", "cpu", "--threads", "1", "--deterministic"
    ) as server:
        log = finished(training(server.url, folders[2], "--steps", "4", "--conversations"))
        rows = logged(folders[2])
        results = httpx.post(f"{server.url}/score", json={"items": [*map(conversation_of, rows)]}, timeout=120).json()
    assert len(rows) >= 24
    rewards = [float32(result["reward"]) for result in results["results"]]
    assert [row["medreward"] for row in rows] == rewards
    assert len({*rewards}) > 8
    assert {step["medreward/unscored"] for step in log if "reward" in step} == {0}


def conversation_of(row: dict[str, Any]) -> dict[str, Any]:
    """The item of a logged row, written by hand; its data set is of 8 rows."""
    asked = next(part["text"] for part in row["prompt"][-1]["content"] if part["text"])
    number = int(asked.split()[1])
    files = [b64(pictures.png(n % 8)) for n in (number, number - 1)]
    earlier = {"role": "user", "content": [{"image": 0}, {"text": "the left lung"}]}
    turns = [{"role": "system", "content": "no"}, earlier, {"role": "assistant", "content": "normal"}]
    (completion,) = row["completion"]
    return {"images": files, "question": asked, "response": completion["content"], "history": turns}


@real
@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--trainer", "rloo", "--asynchronous"]])
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


@real
@pytest.mark.slow
def test_a_run_resumed_against_another_model_stops_until_that_one_is_accepted(server: Served, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "other"
    other.mkdir()
    finished(training(server.url, run, "--steps", "2", "--save"))
    (noted,) = noted_in(run)
    state = json.loads((run / "checkpoint-2" / "trainer_state.json").read_text())
    assert noted in state["log_history"]
    assert {row["medreward_fingerprint"] for row in logged(run)} == {noted["medreward/fingerprint"]}

    finished(training(server.url, run, "--steps", "3", "--save", "--resume"))  # the same model: nothing is said
    assert noted_in(run) == [noted]

    with serving(other, "--fake-delay-ms", "0") as changed:
        fingerprint = httpx.get(f"{changed.url}/v1/model", timeout=60).json()["fingerprint"]
        refused = training(changed.url, run, "--steps", "4", "--resume")
        _, err = refused.communicate(timeout=600)
        assert refused.returncode
        assert "VersionChanged: version_changed: this run's rewards were those of tiny" in err
        assert f"pin='{fingerprint}'" in err
        log = finished(training(changed.url, run, "--steps", "4", "--resume", "--pin", fingerprint))
    assert [entry["medreward/fingerprint"] for entry in noted_in(run)] == [noted["medreward/fingerprint"], fingerprint]
    assert log[-1]["step"] == 4


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
