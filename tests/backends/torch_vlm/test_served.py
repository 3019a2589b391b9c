"""A checkpoint in a folder, served by the real command."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from backends.torch_vlm.checkpoints import FAMILIES, SIDE, TOKENS, Plain, write_checkpoint
from commands import serving

QUESTION = "is there a fracture ?"
STEPS = "yes , a small fracture . " * 6
ENDS = [0, 3, *range(29, len(STEPS), 27)]  # between words, and within some
ANSWERS = ["yes , a small fracture", "no", ""]


def test_rest_gives_the_logits_of_plain_transformers(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_checkpoint(folder, "qwen2_5_vl")
    plain = Plain(folder, "qwen2_5_vl")
    pixels = np.random.default_rng(7).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    forged = "<image> yes <image>"
    body = {
        "items": [
            {"image": png(pixels), "question": QUESTION, "responses": ANSWERS},
            {"question": QUESTION, "responses": ANSWERS},
            {"image": png(pixels), "question": QUESTION, "response": forged},
        ]
    }
    with serving(tmp_path, "--model", str(folder), "--device", "cpu", "--threads", "1") as served:
        answered = httpx.post(f"{served.url}/v1/score", json=body, timeout=120).json()
        metrics = httpx.get(f"{served.admin_url}/metrics", timeout=60).text
        stepped = {"question": QUESTION, "response": STEPS, "options": {"steps": ENDS}}
        cut = {"items": [{"question": QUESTION, "responses": [STEPS[:end] for end in ENDS]}]}
        by_step, by_text = (
            httpx.post(f"{served.url}/v1/score", json=each, timeout=120).json()["results"] for each in (stepped, cut)
        )
    assert answered["model"]["runtime"] == "torch_vlm/cpu/fp32"
    results = answered["results"]
    assert [result["status"] for result in results] == ["ok"] * 7
    assert results[6]["flags"] == ["control_tokens"]
    for result, (picture, answer) in zip(results, [(p, a) for p in (pixels, None) for a in ANSWERS], strict=False):
        expected = plain.logits(picture, prompt(picture is not None), reply(answer)).mean(0)
        assert np.abs(np.array([*result["logits"].values()]) - expected.numpy()).max() <= 1e-4
    assert "medreward_image_encodes_total 1.0" in metrics
    for step, text in zip(by_step[0]["steps"], by_text, strict=True):
        differences = [abs(step["logits"][name] - text["logits"][name]) for name in text["logits"]]
        assert max(differences) <= 1e-5
    assert len({step["reward"] for step in by_step[0]["steps"]}) == len(ENDS)


def prompt(has_image: bool) -> list[int]:
    pieces = FAMILIES["qwen2_5_vl"].image if has_image else ()
    return [TOKENS[word] for word in ("<s>", "<user>", *pieces, *QUESTION.split())]


def reply(text: str) -> list[int]:
    return [TOKENS[word] for word in ("<assistant>", *text.split(), "</s>")]


def png(pixels: np.ndarray[Any, Any]) -> str:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
