import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from medreward.artifacts.golden import GoldenTriple, read_golden, tolerance
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Runtime, Six

ROW: dict[str, Any] = {
    "image": base64.b64encode(b"png").decode(),
    "question": "Is it broken?",
    "response": "Yes.",
    "logits": {dimension: float(index) for index, dimension in enumerate(reversed(DIMENSIONS))},
}


def read(folder: Path, content: object) -> list[GoldenTriple]:
    path = folder / "golden.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_golden(path)


def test_triples_come_with_bytes_and_logits_in_order(tmp_path: Path) -> None:
    assert read(tmp_path, [ROW, {**ROW, "image": None}]) == [
        GoldenTriple(b"png", "Is it broken?", "Yes.", (5.0, 4.0, 3.0, 2.0, 1.0, 0.0)),
        GoldenTriple(None, "Is it broken?", "Yes.", (5.0, 4.0, 3.0, 2.0, 1.0, 0.0)),
    ]


def test_a_dimension_that_the_model_has_not_is_null(tmp_path: Path) -> None:
    [triple] = read(tmp_path, [{**ROW, "logits": ROW["logits"] | {"creativity": None}}])
    assert triple.logits == (5.0, 4.0, 3.0, None, 1.0, 0.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[", "JSON"),
        ([], "at least 1 item"),
        ([{**ROW, "image": "not base64!"}], "0.image"),
        ([ROW, {**ROW, "logits": {"overall": 1.0}}], "1: "),
        ([{**ROW, "logits": ROW["logits"] | {"overall": "high"}}], "0.logits.overall"),
        ([{**ROW, "logits": ROW["logits"] | {"overall": float("nan")}}], "0.logits.overall"),
        ([{**ROW, "answer": "x"}], "0.answer"),
    ],
)
def test_a_malformed_file_is_refused_saying_where(tmp_path: Path, content: object, says: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(says)):
        read(tmp_path, content)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no golden triples"):
        read_golden(tmp_path / "golden.json")


def logits_of(*overall: float) -> list[Six]:
    return [(None, None, None, None, x, 2 * x) for x in overall]


def test_how_far_a_logit_may_be_from_the_golden_one() -> None:
    fine, coarse = map(Runtime.of, ("torch_vlm/cuda/fp32", "torch_vlm/cuda/bf16"))
    assert tolerance(logits_of(0, 4), [fine]) == 1e-4
    apart = (2**2 / 2 + 4**2 / 2) ** 0.5
    assert tolerance(logits_of(0, 4), [fine, coarse]) == pytest.approx(apart / 2)
    assert tolerance(logits_of(3), [coarse], [2.0, 4.0]) == 1.5  # alone: half of the mean scale
