"""Writes the rewards into the table of the README's image example: `python docs/readme.py`, after the model changed."""

import asyncio
import base64
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from medreward.cli.in_process import EngineTransport
from medreward.cli.serve import read_settings
from medreward.clients import AsyncClient

README = Path(__file__).parents[1] / "README.md"
IMAGES = ("chest", "brain")
TABLE = re.compile(r"(?<=\| --- \| --- \| --- \|\n)(?:\| \w+\.png .*\n)+")


def body_of(request: str) -> bytes:
    """Returns the body that the example's Python sends, beside images that are drawn as the README draws them."""
    with tempfile.TemporaryDirectory() as folder:
        for region in IMAGES:
            draw = [sys.executable, "-m", "medreward.lab.phantoms", region, f"{region}.png"]
            subprocess.run(draw, cwd=folder, check=True, capture_output=True)
        return subprocess.run([sys.executable, "-c", request], cwd=folder, check=True, capture_output=True).stdout


async def rewards(body: bytes) -> list[float]:
    """Returns the rewards that the bundled model gives to the responses, in their order."""
    triples = [
        (base64.b64decode(item["image"]), item["question"], response)
        for item in json.loads(body)["items"]
        for response in item["responses"]
    ]
    async with AsyncClient(await EngineTransport.start(read_settings()), strict=True) as client:
        return [score.reward or 0.0 for score in await client.score_many(triples)]


def rows(values: list[float]) -> str:
    """Returns the table's rows, two rewards each, the higher one in bold."""
    pairs = zip(values[::2], values[1::2], strict=True)
    cells = [[f"**{reward:.2f}**" if reward == max(pair) else f"{reward:.2f}" for reward in pair] for pair in pairs]
    return "".join(f"| {image}.png | {' | '.join(row)} |\n" for image, row in zip(IMAGES, cells, strict=True))


if __name__ == "__main__":
    text = README.read_text("utf-8")
    (example,) = re.findall(r"python3 - <<'EOF'.*?\n(.*?)\nEOF\n", text, re.DOTALL)
    README.write_text(TABLE.sub(rows(asyncio.run(rewards(body_of(example)))), text), "utf-8")
