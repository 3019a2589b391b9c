"""Drift over the decisions of a server: which of them count, what an alarm says, and what begins anew."""

import json
import logging
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from asking import check_problem
from cases import b64
from drifting import stationary
from medreward.backends.fake import FAKE_MANIFEST
from medreward.errors import ConfigurationError
from medreward.screening.drift import Drift, DriftAccount
from medreward.screening.samples import Line, Sample, of_new_images, read_reference
from medreward.types import DIMENSIONS, WATCHED
from pictures import jpeg
from policies import policy_text, publish, threshold
from serving import Server, running

FINGERPRINT = FAKE_MANIFEST.fingerprint


def drift(window: int = 300, false_alarms: float = 0.01, reference: tuple[Sample, ...] = (), seed: int = 1) -> Drift:
    return Drift(window, false_alarms, reference, Random(seed))


def test_stationary_replay_alarms_in_at_most_the_stated_share_of_runs() -> None:
    """All sixteen watches together, a third of the runs allowed, so that thirty runs can tell."""
    alarms = 0
    for seed in range(30):
        watched = drift(200, 0.33, seed=seed)
        alarms += any(watched.see(sample) for sample in islice(stationary(Random(seed)), 700))
    assert alarms <= 10


def test_answers_about_one_image_would_alarm_and_one_of_each_does_not() -> None:
    all_answers = one_of_each = 0
    for seed in range(8):
        samples = list(islice(stationary(Random(seed)), 500))
        lines = [Line(n, "", ((f"image {n}", sample),)) for n, sample in enumerate(samples) for _ in range(6)]
        every, first = drift(200, 0.1, seed=seed), drift(200, 0.1, seed=seed)
        all_answers += any(every.see(sample) for line in lines for _, sample in line.samples)
        one_of_each += any(first.see(sample) for _, sample in of_new_images(lines))
    assert all_answers > 4
    assert one_of_each <= 1


def test_a_shift_of_three_tenths_is_found_within_the_stated_number() -> None:
    found = []
    for seed in range(5):
        watched, random = drift(1000, seed=seed), Random(seed)
        before = [name for sample in islice(stationary(random), 1500) for name in watched.see(sample)]
        after = [(n, watched.see(sample)) for n, sample in enumerate(islice(stationary(random, 0.3), 800))]
        assert before == []
        found.append(next((n for n, names in after if "accuracy" in names), 800))
    assert sorted(found)[2] < 500
    assert max(found) < 800


def test_new_version_of_a_policy_begins_the_verdicts_anew_and_nothing_else() -> None:
    watched = drift(200)
    first = list(islice(stationary(Random(1)), 400))
    for sample in first:
        watched.see(sample)
    second = Sample(first[0].scores, (), "block", ("strict", "sha256:2"))
    watched.see(second)
    state = watched.state()
    assert (state["verdict_block"]["reference"], state["verdict_block"]["missing"]) == (1, 199)
    assert state["accuracy"]["tested"] == 201


def rhythm(random: Random, days: int, images: int = 300) -> list[Sample]:
    """Days with an evening that has other patients."""
    halves = [islice(stationary(random, shift), images // 2) for shift in (-0.4, 0.4) * days]
    return [sample for half in halves for sample in half]


def test_a_daily_rhythm_is_no_change_where_days_are_mixed() -> None:
    samples = rhythm(Random(4), 12)
    plain, mixed = drift(600), Drift(600, 0.01, (), Random(4), mix=900)
    assert any(plain.see(sample) for sample in samples)
    assert not any(mixed.see(sample) for sample in samples)
    later = (mixed.see(sample) for sample in islice(stationary(Random(5), 1.5), 1500))
    assert any("accuracy" in names for names in later)


def test_verdicts_of_an_old_version_that_wait_are_not_taken_for_the_new_ones() -> None:
    mixed = Drift(200, 0.01, (), Random(1), mix=100)
    for sample in islice(stationary(Random(1)), 400):
        mixed.see(sample)
    for sample in islice(stationary(Random(2)), 50):
        mixed.see(Sample(sample.scores, (), "block", ("strict", "sha256:2")))
    state = mixed.state()
    learnt, missing = state["verdict_block"]["reference"], state["verdict_block"]["missing"]
    assert (learnt, missing) == (mixed.state()["verdict_allow"]["reference"], 200 - int(str(learnt)))
    assert 0 < int(str(learnt)) < 50


def test_reference_is_learnt_whole_and_what_it_lacks_is_learnt_from_the_first_decisions() -> None:
    reference = tuple(Sample(sample.scores, sample.flags) for sample in islice(stationary(Random(2)), 250))
    watched = drift(300, reference=reference)
    watched.see(next(stationary(Random(3))))
    state = watched.state()
    assert (state["accuracy"]["reference"], state["accuracy"]["tested"]) == (250, 1)
    assert (state["verdict_allow"]["reference"], state["verdict_allow"]["missing"]) == (1, 299)


def scored_file(path: Path, images: int, fingerprint: str = FINGERPRINT, answers: int = 1) -> Path:
    """A file as `score-file` writes it: each line one image with some answers."""
    result = {"item": 0, "status": "ok", "scores": dict.fromkeys(DIMENSIONS, 0.5), "flags": ["no_image"]}
    line = {"results": [{**result, "response": n} for n in range(answers)], "model": {"fingerprint": fingerprint}}
    path.write_text("".join(json.dumps(line) + "\n" for _ in range(images)))
    return path


def test_reference_file_counts_each_image_once(tmp_path: Path) -> None:
    samples = read_reference(scored_file(tmp_path / "scored.jsonl", 250, answers=4), FINGERPRINT)
    assert len(samples) == 250
    assert samples[0] == Sample((0.5,) * 6, ("no_image",))


def test_audit_log_is_a_reference_and_other_entries_in_it_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    lines: list[object] = [{"seq": 1, "event": "opened"}]
    for n in range(500):
        subject = {"images": [f"{n // 2:064x}"], "scores": dict.fromkeys(DIMENSIONS, 0.25), "flags": []}
        result = {"item": 0, "response": 0, "verdict": "allow", "subject": subject}
        policy = {"name": "strict", "version": "1", "digest": "sha256:1"}
        lines.append({"policy": policy, "model": {"fingerprint": FINGERPRINT}, "results": [result]})
        lines.append({"event": "override", "verdict": "block", "subject": None})
    lines.append({"results": [{"item": 0, "verdict": "allow", "subject": None}]})  # erased
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    samples = read_reference(file, FINGERPRINT)
    assert len(samples) == 250  # two decisions on each image
    assert samples[0] == Sample((0.25,) * 6, (), "allow", ("strict", "sha256:1"))


@pytest.mark.parametrize(
    ("images", "fingerprint", "message"),
    [(50, FINGERPRINT, "a reference needs 200"), (250, "sha256:other", "scored by the model sha256:other")],
)
def test_reference_that_is_too_small_or_of_another_model_is_refused(
    tmp_path: Path, images: int, fingerprint: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_reference(scored_file(tmp_path / "scored.jsonl", images, fingerprint), FINGERPRINT)


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    folder = tmp_path_factory.mktemp("policies")
    publish(folder, policy_text(threshold("all", "allow", -99.0), fingerprint=FINGERPRINT))
    async with running(policies=folder) as server:
        yield server


async def screen(server: Server, *responses: str, image: bytes | None = None, question: str = "What is it?") -> None:
    item = {"image": b64(image) if image else None, "question": question, "responses": list(responses)}
    assert (await server.rest.post("/v1/screen", json={"items": [item]})).status_code == 200


async def learnt(server: Server) -> int:
    await server.admin.get("/admin/state")
    state = (await server.admin.get("/admin/state")).json()["drift"]["overall"]
    count: int = state["reference"] + state["tested"]
    return count


async def test_an_image_counts_once_however_often_and_however_many_answers_are_screened(server: Server) -> None:
    before = await learnt(server)
    await screen(server, "a", "b", "c", "d", image=jpeg(1))
    await screen(server, "e", image=jpeg(1), question="And now?")
    await screen(server, "a", image=jpeg(2))
    assert await learnt(server) == before + 2


async def test_without_an_image_each_new_answer_counts(server: Server) -> None:
    before = await learnt(server)
    for response in ("first report", "second report", "second report"):
        await screen(server, response)
    assert await learnt(server) == before + 2


async def test_scores_for_trainers_do_not_count(server: Server) -> None:
    before = await learnt(server)
    await server.rest.post("/score", json={"question": "q?", "response": "of a policy that learns"})
    assert await learnt(server) == before


async def test_metrics_of_all_that_is_watched_start_at_0(server: Server) -> None:
    text = (await server.admin.get("/metrics")).text
    for name in WATCHED:
        assert f'medreward_drift_alarm{{dimension="{name}"}} 0.0' in text
        assert f'medreward_drift_statistic{{dimension="{name}"}} 0.0' in text


async def test_alarm_is_logged_counted_shown_and_reset(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    assert server.screening.drift
    await server.admin.post("/admin/drift/reset")
    assert await learnt(server) == 0
    random = Random(9)
    for sample in islice(stationary(random), 1000):
        server.screening.drift.see(sample)
    with caplog.at_level(logging.WARNING, "medreward.screening.drift"):
        for n in range(40):  # the fake model scores nothing as those before
            await screen(server, f"answer {n}")
    records = [record for record in caplog.records if record.message.startswith("drift: ")]
    assert {getattr(record, "watched", "") for record in records} >= {"flag_no_image"}
    assert all(getattr(record, "learnt", 0) == 1000 for record in records)
    assert 'medreward_drift_alarm{dimension="flag_no_image"} 1.0' in (await server.admin.get("/metrics")).text
    state = (await server.admin.get("/admin/state")).json()["drift"]["flag_no_image"]
    assert (state["alarm"], state["change"]) == (True, "more often")
    reset = (await server.admin.post("/admin/drift/reset")).json()["drift"]["flag_no_image"]
    assert (reset["alarm"], reset["missing"]) == (False, 1000)
    assert 'medreward_drift_alarm{dimension="flag_no_image"} 0.0' in (await server.admin.get("/metrics")).text


async def test_drift_that_fails_does_not_reach_the_request(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("what the patient said")

    monkeypatch.setattr(DriftAccount, "_is_new", broken)
    await screen(server, "answered all the same")


async def test_drift_that_is_off_watches_nothing_and_says_so() -> None:
    async with running(drift="off") as server:
        assert (await server.admin.get("/admin/state")).json()["drift"] is None
        check_problem(await server.admin.post("/admin/drift/reset"), 404, "not_found")


async def test_reference_of_another_model_stops_the_start(tmp_path: Path) -> None:
    file = scored_file(tmp_path / "scored.jsonl", 250, "sha256:other")
    with pytest.raises(ConfigurationError, match="scored by the model sha256:other"):
        async with running(drift_reference=file):
            pass
