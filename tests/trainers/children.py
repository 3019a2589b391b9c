"""A process of .venv/trainers in which a trainer's own code runs, and what both sides of the tests are about."""

import json
import re
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from commands import CLEAN, Served
from pictures import png

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "trainers" / "bin" / "python"
PAGES = ROOT / "docs" / "trainers"

QUESTION = "Is there a pleural effusion?"
RESPONSES = ["Yes.", "No, both angles are sharp.", "A nodule in the left lung.", "Ja, ein Erguß: 左側 🫁."]


class Raised(Exception):
    """What the trainer's code raised: the name of the class, and its words."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name


class Child:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.logged: list[str] = []  # by our adapters, in the last call

    def call(self, function: str, **given: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"function": function, "given": given}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the process of the trainer has ended; its last words stand above"
        answer = json.loads(line)
        self.logged = answer["logged"]
        if "error" in answer:
            raise Raised(*answer["error"])
        return answer["value"]


@contextmanager
def child(script: str, *paths: Path) -> Iterator[Child]:
    """Runs a script of this folder; its modules may also lie in `paths`."""
    assert PYTHON.exists(), "the trainers are not installed: run `make trainers`"
    command = [str(PYTHON), "-W", "ignore", str(Path(__file__).with_name(script))]
    places = [ROOT / "tests", ROOT / "tests" / "support", *paths]
    env = CLEAN | {"PYTHONPATH": ":".join(map(str, places)), "HF_HUB_OFFLINE": "1", "RAY_DISABLE_IMPORT_WARNING": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
        yield Child(process)
        assert process.stdin
        process.stdin.close()


def pasted(page: str, language: str, served: Served, n: int = 0) -> str:
    """The configuration of a page, asking this server: its n-th block in this language."""
    text = (PAGES / page).read_text("utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    blocks = [block for written, block in found if written == language]
    block: str = blocks[n]
    return block.replace("http://127.0.0.1:8000", served.url)


def chatml(question: str, response: str | None = None, image: bool = False) -> str:
    """A rendered chat template, as Qwen's is."""
    pads = "<|vision_start|><|image_pad|><|vision_end|>" if image else ""
    prompt = f"<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{pads}{question}<|im_end|>\n"
    prompt += "<|im_start|>assistant\n"
    return prompt if response is None else f"{prompt}{response}<|im_end|>"


def results(
    served: Served, responses: Sequence[str], image: bytes | None = None, question: str = QUESTION, **more: Any
) -> list[dict[str, Any]]:
    """What /score says of them."""
    picture = None if image is None else b64encode(image).decode()
    body = {"items": [{"image": picture, "question": question, "responses": list(responses)}], **more}
    reply = httpx.post(f"{served.url}/score", json=body, timeout=120)
    found: list[dict[str, Any]] = reply.raise_for_status().json()["results"]
    assert [result["status"] for result in found] == ["ok"] * len(responses)
    return found


def rewards(served: Served, responses: Sequence[str], image: bytes | None = None, **more: Any) -> list[float]:
    return [result["reward"] for result in results(served, responses, image, **more)]


def stored(served: Served, image: bytes) -> str:
    """The sha256 of an image that the server now holds."""
    reply = httpx.put(f"{served.url}/v1/images", content=image, timeout=60).raise_for_status()
    digest: str = reply.json()["sha256"]
    return digest


def counted(served: Served, metric: str) -> float:
    lines = httpx.get(f"{served.admin_url}/metrics", timeout=60).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{re.escape(metric)}(?![a-z_])", line))


def new_image(seed: int) -> bytes:
    """An image that no other test asks about, so that its encoding is counted."""
    return png(9000 + seed)
