"""A model that has two of the six dimensions: nulls for the others, at every door and on disk."""

import asyncio
import hashlib
import json
import math
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner

from asking import post
from cases import to_message
from medreward.api.rest.reply_shapes import ScoreReply
from medreward.backends.base import Group
from medreward.cli.score import command as score
from medreward.cli.score_file import command as score_file
from medreward.clients import AsyncClient, Client
from medreward.clients.trl import reward_funcs
from medreward.engine.model import open_model
from medreward.errors import ConfigurationError
from medreward.proto import reward_pb2 as pb
from medreward.types import DIMENSIONS, Options
from serving import Server, running, settings_for
from tiny_model import Shape, torch_logits

QUESTION, RESPONSE = "Is there a fracture?", "Yes, of the left rib."
BODY: dict[str, Any] = {"items": [{"question": QUESTION, "responses": [RESPONSE, "No."]}]}
OWN = {"accuracy", "overall"}


@pytest.fixture(scope="module")
async def two(two_folder: Path) -> AsyncIterator[Server]:
    async with running(isolation="process", model=str(two_folder)) as server:
        yield server


def torch_says(folder: Path) -> Any:
    """Heads of the ensemble, and the two dimensions."""
    text = open_model(settings_for(model=str(folder))).text
    prompt = text.prompt(QUESTION, has_image=False)
    answer = text.answer(prompt, RESPONSE, Options())
    group = Group(None, prompt.ids, [answer.ids])
    return torch_logits(group, shape=Shape(dimensions=("accuracy", "overall")))[0].astype(float)


async def test_what_the_model_has_not_is_null(two: Server, two_folder: Path) -> None:
    reply = await post(two, BODY)
    ScoreReply.model_validate_json(reply.content)
    first = reply.json()["results"][0]
    expected = torch_says(two_folder)
    for name in ("scores", "logits", "uncertainty"):
        assert list(first[name]) == list(DIMENSIONS)
        assert {dimension for dimension, number in first[name].items() if number is not None} == OWN
    assert [first["logits"][d] for d in sorted(OWN)] == pytest.approx(list(expected.mean(0)), abs=1e-5)
    assert [first["uncertainty"][d] for d in sorted(OWN)] == pytest.approx(list(expected.std(0)), abs=1e-5)
    assert first["scores"]["overall"] == pytest.approx(1 / (1 + math.exp(-first["logits"]["overall"])))
    assert first["reward"] == first["logits"]["overall"]
    assert first["flags"] == ["no_image"]


async def test_grpc_leaves_unset_what_rest_has_null(two: Server) -> None:
    results = (await post(two, BODY)).json()["results"]
    reply = await two.stub.Score(to_message(BODY))
    assert len(reply.results) == 2
    for mine, other in zip(reply.results, results, strict=True):
        for name in ("scores", "logits", "uncertainty"):
            six = getattr(mine, name)
            assert {field.name: number for field, number in six.ListFields()} == {d: other[name][d] for d in OWN}
        assert mine.reward == other["reward"]


async def test_a_reward_is_null_where_a_weight_is_on_what_is_null(two: Server) -> None:
    for weights in ({"creativity": 0.1}, {"overall": 1, "creativity": -1}):
        reply = await post(two, BODY | {"weights": weights})
        message = await two.stub.Score(to_message(BODY | {"weights": weights}))
        assert [result["reward"] for result in reply.json()["results"]] == [None, None]
        assert not any(result.HasField("reward") for result in message.results)
    reply = await post(two, BODY | {"weights": {"accuracy": 2, "creativity": 0}})
    assert [r["reward"] for r in reply.json()["results"]] == [
        2 * r["logits"]["accuracy"] for r in reply.json()["results"]
    ]


async def test_the_model_says_which_dimensions_it_has(two: Server) -> None:
    about = (await two.rest.get("/v1/model")).json()
    assert about["dimensions"] == list((await two.stub.GetModel(pb.GetModelRequest())).dimensions) == sorted(OWN)
    assert about["default_weights"] == dict.fromkeys(DIMENSIONS, 0.0) | {"overall": 1.0}
    metrics = (await two.admin.get("/metrics")).text
    assert 'medreward_score_count{dimension="creativity"} 0.0' in metrics
    assert 'medreward_score_count{dimension="overall"} 0.0' not in metrics


async def test_the_client_has_none_at_both_doors(two: Server) -> None:
    async with AsyncClient(f"http://127.0.0.1:{two.port}") as rest, AsyncClient(f"grpc://{two.grpc_target}") as rpc:
        [one], [other] = [await door.score(None, QUESTION, [RESPONSE]) for door in (rest, rpc)]
        [unrewarded] = await rpc.score(None, QUESTION, [RESPONSE], weights={"relevance": 1})
    assert one == other
    assert one.logits is not None
    assert (one.logits["creativity"], one.reward) == (None, one.logits["overall"])
    assert (unrewarded.reward, unrewarded.logits) == (None, one.logits)


async def test_trl_gets_none_for_what_the_model_has_not(two: Server) -> None:
    logged: dict[str, float] = {}
    asked, answers = [QUESTION, QUESTION], [RESPONSE, "No."]
    with Client(f"http://127.0.0.1:{two.port}") as client:
        whole, each = (reward_funcs(client, per_dimension=per_dimension) for per_dimension in (False, True))
        rewards = await asyncio.to_thread(whole[0], asked, answers, log_metric=logged.__setitem__)
        columns = {function.__name__: await asyncio.to_thread(function, asked, answers) for function in each}
    assert None not in rewards
    assert columns["overall"] == rewards
    assert columns["creativity"] == [None, None]
    names = {name.removeprefix("medreward/") for name in logged}
    assert "unscored" in names
    assert {name.removeprefix("uncertainty/") for name in names} & {*DIMENSIONS} == OWN


@pytest.mark.parametrize(
    ("change", "starts"),
    [
        (lambda logits: logits, True),
        (lambda logits: logits | {"overall": logits["overall"] + 0.01}, False),
        (lambda logits: logits | {"overall": None}, False),
        (lambda logits: logits | {"creativity": 0.0}, False),
    ],
)
async def test_golden_triples_have_null_where_the_model_has(
    two: Server, two_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], starts: bool
) -> None:
    logits = (await post(two, BODY)).json()["results"][0]["logits"]
    folder = Path(shutil.copytree(two_folder, tmp_path / "model"))
    golden = json.dumps([{"image": None, "question": QUESTION, "response": RESPONSE, "logits": change(logits)}])
    (folder / "golden.json").write_text(golden)
    text = (folder / "model.toml").read_text().replace('card = "card.md"', 'card = "card.md"\ngolden = "golden.json"')
    (folder / "model.toml").write_text(f'{text}"golden.json" = "{hashlib.sha256(golden.encode()).hexdigest()}"\n')
    if starts:
        async with running(model=str(folder)):
            return
    with pytest.raises(ConfigurationError, match=r"golden triple 0 of tiny: .* is .* here and .* in golden.json"):
        async with running(model=str(folder)):
            pass


async def test_a_graph_of_other_dimensions_than_the_manifests_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    text = (folder / "model.toml").read_text().replace('name = "tiny"', 'name = "tiny"\ndimensions = ["overall"]')
    calibration = "[calibration]\noverall = { median = 0.0, scale = 1.0 }\n\n[files]"
    (folder / "model.toml").write_text(f"{text[: text.index('[calibration]')]}{calibration}{text.split('[files]')[1]}")
    with pytest.raises(ConfigurationError, match="do not fit together"):
        async with running(model=str(folder)):
            pass


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_file_has_null_where_the_model_has(two_folder: Path, tmp_path: Path, kind: str) -> None:
    source, out = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    asked_row = {"question": QUESTION, "response": RESPONSE}
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([asked_row]), source)
    else:
        source.write_text(json.dumps(asked_row))
    asked = [str(source), str(out), "--model", str(two_folder), "--weights", "creativity=1"]
    assert CliRunner().invoke(score_file, asked, standalone_mode=False).return_value == 0
    [row] = pyarrow.parquet.read_table(out).to_pylist() if kind == "parquet" else [json.loads(out.read_text())]
    [result] = row["results"]
    assert {name for name, number in result["logits"].items() if number is not None} == OWN
    assert (result["status"], result["reward"]) == ("ok", None)


def test_the_table_has_a_dash_where_there_is_no_number(two_folder: Path) -> None:
    asked = ["--question", QUESTION, "--response", RESPONSE, "--model", str(two_folder), "--weights", "creativity=1"]
    done = CliRunner().invoke(score, asked, standalone_mode=False)
    [row] = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("0 ")]
    assert [cell == "-" for cell in row[1:8]] == [False, True, True, True, True, False, True]


async def test_a_trainers_reward_that_needs_a_dimension_that_is_not_there_is_an_error(two: Server) -> None:
    body = {"prompt": QUESTION, "response": RESPONSE}
    given = (await two.rest.post("/rm?weights=accuracy:1", json=body)).json()
    assert given["reward"] == given["accuracy"]
    assert given["creativity"] is None
    refused = await two.rest.post("/rm?weights=creativity:1", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_field")
