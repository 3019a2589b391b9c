"""bf16 on a CPU: how far from plain transformers in bf16, and what depends on the type that was chosen."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from backends.torch_vlm.checkpoints import DEEP, FAMILIES, SIDE, TOKENS, VOCABULARY, Plain, opened, write_checkpoint
from medreward.backends.base import Group, Logits, ModelImage
from medreward.cli.score import command
from medreward.errors import ConfigurationError

LARGEST = (
    0.12  # in standard deviations of a logit among a group's answers: twice what was seen in few layers (docs/vlm.md)
)
ASKED = ["--question", "is there a fracture ?", "--response", "yes", "--response", "no"]

deep = pytest.mark.parametrize("family", DEEP)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    threads = torch.get_num_threads()
    made = {family: tmp_path_factory.mktemp(family) for family in DEEP}
    for family, folder in made.items():
        write_checkpoint(folder, family)
    yield made
    torch.set_num_threads(threads)


def groups(family: str) -> list[Group]:
    """Eight answers of 8 to 200 tokens to each of three images."""
    rng = np.random.default_rng(4)

    def ids(count: int) -> list[int]:
        return [int(i) for i in rng.integers(max(TOKENS.values()) // 2, VOCABULARY, count)]

    prompt = [TOKENS[piece] for piece in FAMILIES[family].image]
    made = []
    for number in range(3):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        answers = [ids(int(length)) for length in rng.integers(8, 201, 8)]
        made.append(Group(ModelImage(f"{number}", pixels), [*prompt, *ids(16)], answers))
    return made


def assert_near(one: list[Logits], other: list[Logits]) -> None:
    spread = np.sqrt(np.mean([logits.var(0) for logits in other]))
    assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) <= LARGEST * spread


@deep
def test_every_logit_is_near_that_of_plain_transformers_in_bf16(folders: dict[str, Path], family: str) -> None:
    asked = groups(family)
    backend = opened(folders[family], dtype="bf16")
    plain = Plain(folders[family], family, dtype=torch.bfloat16)
    expected = [
        np.stack([plain.logits(group.image.pixels, group.prompt, answer).numpy() for answer in group.answers])
        for group in asked
        if group.image
    ]
    assert str(backend.runtime) == "torch_vlm/cpu/bf16"
    assert backend.backbone.base.dtype == torch.bfloat16
    assert_near(backend.score(asked), expected)


@deep
def test_company_order_and_caches_change_no_bit(folders: dict[str, Path], family: str) -> None:
    asked = groups(family)
    backend = opened(folders[family], dtype="bf16")
    first = backend.score(asked)
    alone = [np.concatenate([backend.score([Group(g.image, g.prompt, [a])])[0] for a in g.answers]) for g in asked]
    backend.release()
    turned = backend.score([Group(g.image, g.prompt, g.answers[::-1]) for g in asked[::-1]])
    for expected, one, other in zip(first, alone, turned[::-1], strict=True):
        assert np.array_equal(one, expected)
        assert np.array_equal(other[::-1], expected)


def scored(folder: Path, *flags: str) -> dict[str, Any]:
    done = CliRunner().invoke(command, ["--model", str(folder), *ASKED, "--json", *flags], standalone_mode=False)
    if done.exception:
        raise done.exception
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


def logits(reply: dict[str, Any]) -> list[dict[str, float]]:
    return [result["logits"] for result in reply["results"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "model", "llava")
    return tmp_path / "model"


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDREWARD_THREADS", "1")


def test_score_takes_the_type_and_says_it(folder: Path) -> None:
    fine, coarse = scored(folder), scored(folder, "--dtype", "bf16")
    assert [reply["model"]["runtime"] for reply in (fine, coarse)] == ["torch_vlm/cpu/fp32", "torch_vlm/cpu/bf16"]
    assert fine["model"]["fingerprint"] == coarse["model"]["fingerprint"]
    assert logits(fine) != logits(coarse)


def test_golden_logits_of_fp32_pass_a_sane_model_in_bf16_and_no_other(folder: Path) -> None:
    rows = logits(scored(folder))
    bare = (folder / "model.toml").read_text()
    add_golden(folder, bare, rows)
    assert logits(scored(folder, "--dtype", "bf16")) != rows  # it starts, with numbers that are not the golden ones
    add_golden(folder, bare, rows[::-1])
    with pytest.raises(ConfigurationError, match=r"golden triple 0 of tiny-llava: .* is .* here and .* in golden.json"):
        scored(folder, "--dtype", "bf16")


def test_in_fp32_golden_logits_stay_exact(folder: Path) -> None:
    rows = logits(scored(folder))
    add_golden(folder, (folder / "model.toml").read_text(), [{d: x + 0.001 for d, x in row.items()} for row in rows])
    with pytest.raises(ConfigurationError, match="golden triple 0"):
        scored(folder)


def add_golden(folder: Path, manifest: str, rows: list[dict[str, float]]) -> None:
    question, *responses = ASKED[1::2]
    golden = json.dumps(
        [
            {"image": None, "question": question, "response": r, "logits": row}
            for r, row in zip(responses, rows, strict=True)
        ]
    )
    (folder / "golden.json").write_text(golden)
    digest = hashlib.sha256(golden.encode()).hexdigest()
    (folder / "model.toml").write_text(f'golden = "golden.json"\n{manifest}"golden.json" = "{digest}"\n')
