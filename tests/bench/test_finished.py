"""A run read back, and the runs with a hole in them."""

import json
import shutil
from collections.abc import Callable
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.here import medreward
from bench.runs import make_run
from bench.sets import some_cases, write_set
from clients.canned import canned, right_answer
from medreward.bench.cases import Images, with_images
from medreward.bench.finished import open_run
from medreward.bench.rewards import Rewards
from medreward.bench.runner import RUNTIMES, cpu_name
from medreward.clients import AsyncClient
from medreward.cores import available_cores
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Options

pytestmark = pytest.mark.slow


def edited(file: Path, edit: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    edit(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_run_is_read_back_as_arrays(tmp_path: Path) -> None:
    cases = some_cases(40)
    run = open_run(make_run(tmp_path / "run", cases, right=0.7, unanswered=0.1, ties=0.1))
    assert [case.key for case in run.cases] == [case.key for case in cases]
    for dimension in DIMENSIONS:
        measured, row = run.column(dimension), run.summary["strict"]["micro"][dimension]
        assert measured.credits.mean() == pytest.approx(row["accuracy"], abs=1e-6)
        assert int(np.isnan(measured.choices).sum()) == row["unanswered"] > 0
        assert np.array_equal(np.sign(measured.margins), measured.choices, equal_nan=True)
        assert len({*measured.images.tolist()}) == 40
        assert [*measured.organs] == [case.organ for case in cases]


def test_a_case_without_a_label_on_a_dimension_is_not_in_it(tmp_path: Path) -> None:
    cases = some_cases(6)
    path = make_run(tmp_path / "run", cases)
    edited(path / "cases.jsonl", lambda rows: rows[2]["labels"].pop("creativity"))
    run = open_run(path)
    assert (len(run.column("creativity").labels), len(run.column("overall").labels)) == (5, 6)


def swap(rows: list[dict[str, Any]]) -> None:
    rows[0], rows[1] = rows[1], rows[0]


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("predictions.jsonl", lambda rows: rows.pop(), "its rows do not match the cases"),
        ("predictions.jsonl", swap, "its rows do not match the cases"),
        ("predictions.jsonl", lambda rows: rows.append(rows[0]), "its rows do not match the cases"),
        ("predictions.jsonl", lambda rows: rows[0]["choices"].pop("overall"), "does not have the six dimensions"),
        ("predictions.jsonl", lambda rows: rows[0]["logits"]["B"].pop("overall"), "does not have the six dimensions"),
        ("predictions.jsonl", lambda rows: rows[0]["choices"].update(overall="C"), "Invalid enum value 'C'"),
        ("predictions.jsonl", lambda rows: rows[0]["logits"]["A"].update(overall=float("nan")), "damaged"),
        ("cases.jsonl", lambda rows: rows[0].pop("image"), "missing required field `image`"),
        ("cases.jsonl", lambda rows: rows.clear(), "its rows do not match the cases"),
    ],
)
def test_a_run_with_a_hole_is_refused(
    file: str, edit: Callable[[list[dict[str, Any]]], object], message: str, tmp_path: Path
) -> None:
    path = make_run(tmp_path / "run", some_cases(6))
    edited(path / file, edit)
    with pytest.raises(ConfigurationError, match=message):
        open_run(path)


def test_a_run_that_lost_the_same_case_everywhere_is_refused_too(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", some_cases(6))
    for file in ("cases.jsonl", "predictions.jsonl"):
        edited(path / file, lambda rows: rows.pop())
    with pytest.raises(ConfigurationError, match="it has 5 cases, but 6 were answered"):
        open_run(path)


@pytest.mark.parametrize("name", ["run.json", "predictions.jsonl", "summary.json"])
def test_what_is_no_finished_run_is_refused(name: str, tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", some_cases(3))
    (path / name).unlink()
    with pytest.raises(ConfigurationError, match=f"is not a finished run, for it has no {name}"):
        open_run(path)
    (path / name).write_text("[1")
    with pytest.raises(ConfigurationError, match="damaged"):
        open_run(path)


@pytest.mark.parametrize("name", ["data_digest", "model", "settings", "totals"])
def test_a_run_that_does_not_say_what_it_is_of_is_refused(name: str, tmp_path: Path) -> None:
    file = make_run(tmp_path / "run", some_cases(3)) / "run.json"
    about = json.loads(file.read_text())
    del about[name]
    file.write_text(json.dumps(about))
    with pytest.raises(ConfigurationError, match=f"missing required field `{name}`"):
        open_run(file.parent)


def test_a_run_that_goes_on_is_refused(tmp_path: Path) -> None:
    path = make_run(tmp_path / "run", some_cases(3))
    (path / "predictions.part.jsonl").touch()
    with pytest.raises(ConfigurationError, match="not finished"):
        open_run(path)


def test_without_its_cases_a_run_takes_them_from_the_data_if_that_is_still_the_same(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", some_cases(9))
    path = make_run(tmp_path / "run", some_cases(9), data=str(data))
    cases = open_run(path).cases
    (path / "cases.jsonl").unlink()
    assert open_run(path).cases == cases
    shutil.rmtree(data)
    write_set(data, some_cases(9, seed=1))
    with pytest.raises(ConfigurationError, match="has changed since the run"):
        open_run(path)


def test_shuffled_images_are_never_the_cases_own_and_blank_ones_have_its_size() -> None:
    cases = some_cases(9)
    twins = [*cases, *cases]
    shuffled = with_images(twins, Images.SHUFFLED)
    assert sorted(case.image for case in shuffled) == sorted(case.image for case in twins)
    assert all(one.image != other.image for one, other in zip(twins, shuffled, strict=True))
    assert shuffled == with_images(twins, Images.SHUFFLED)
    blank = {case.image for case in with_images(cases, Images.BLANK)}
    assert len(blank) == 1
    picture = Image.open(BytesIO(blank.pop()))
    assert (picture.size, picture.getextrema()) == ((12, 8), (128, 128))
    with pytest.raises(ConfigurationError, match="two different"):
        with_images(cases[:1], Images.SHUFFLED)


async def test_a_run_with_other_images_is_a_run_of_its_own_on_the_same_benchmark(tmp_path: Path) -> None:
    data = write_set(tmp_path / "data", some_cases(9))
    base = ("bench", "run", "--data", data, "--model", "fake", "--out")
    for images in ("own", "blank", "none"):
        done = await medreward(*base, tmp_path / images, "--images", images)
        assert done.code == 0, done
    other = await medreward(*base, tmp_path / "own", "--images", "shuffled")
    assert (other.code, "settings (images)" in other.err) == (2, True)
    own, blank = open_run(tmp_path / "own"), open_run(tmp_path / "blank")
    assert (own.digest, own.cases) == (blank.digest, blank.cases)
    assert own.predictions != blank.predictions
    assert (own.images, blank.images) == ("own", "blank")
    versions = own.about["versions"]
    assert {name: versions[name] for name in RUNTIMES} == {name: metadata.version(name) for name in RUNTIMES}
    assert (own.about["cpu"], own.about["cores"]) == (cpu_name(), available_cores())
    none = open_run(tmp_path / "none")
    assert (none.images, none.cases) == ("none", own.cases)
    assert none.predictions not in (own.predictions, blank.predictions)
    assert "It was shown no image." in (tmp_path / "none" / "report.html").read_text()


async def test_without_images_a_server_is_sent_none() -> None:
    (case,) = with_images(some_cases(1), Images.NONE)
    async with canned(right_answer) as server:
        served = Rewards(AsyncClient(server.url), Options())
        await served.about()
        await served.choose(case)
        await served.aclose()
        (item,) = server.asked[0].items
    assert item.get("image") is None
