"""`medreward score`: one question, some responses, a table."""

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import click

from medreward.cli.asking import WholeText, asking_options, beside, chosen_url, where_options
from medreward.cli.options import json_option, option
from medreward.cli.scorer import open_scorer
from medreward.cli.show import print_json, print_table
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS


@click.command("score")
@option(
    "--image",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="image: JPEG, PNG, WebP or DICOM; without it, text alone is scored",
)
@option("--question", required=True, metavar="TEXT", help="question about the image")
@option(
    "--response", "responses", type=WholeText(), multiple=True, required=True, help="response to score; may be repeated"
)
@where_options
@asking_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    image: Path | None,
    question: str,
    responses: tuple[str, ...],
    url: str | None,
    key: str | None,
    weights: dict[str, float] | None,
    too_long: str,
    thinking: str,
    as_json: bool,
    **local: Any,
) -> int:
    """Score responses to a question, in this process or on a server."""
    item = {"image": _base64(image) if image else None, "question": question, "responses": responses}
    body = json.dumps({"items": [item], **beside(weights, too_long, thinking)}).encode()
    reply = asyncio.run(_score(chosen_url(context, url, local["model"]), key, local, body))
    if as_json:
        print_json(reply)
    else:
        _print(reply)
    return int(any(result["status"] != "ok" for result in reply["results"]))


async def _score(url: str | None, key: str | None, local: dict[str, Any], body: bytes) -> dict[str, Any]:
    async with open_scorer(url, key, local) as scorer:
        return await scorer.score(body)


def _base64(image: Path) -> str:
    try:
        return base64.b64encode(image.read_bytes()).decode()
    except OSError as error:
        raise ConfigurationError(f"the image {image} cannot be read: {error.strerror}") from None


def _print(reply: dict[str, Any]) -> None:
    numbers = [*DIMENSIONS, "reward"]
    print_table(["response", *numbers, "flags"], map(_row, reply["results"]), numbers)
    model = reply["model"]
    click.echo(f"{model['name']} {model['version']}, {model['runtime']}, evidence: {model['evidence']}")
    click.echo(model["fingerprint"])


def _row(result: dict[str, Any]) -> list[str]:
    if result["status"] != "ok":
        error = result["error"]
        unknown = ["-"] * (len(DIMENSIONS) + 1)
        return [str(result["response"]), *unknown, f"{error['code']}: {error['message']}"]
    numbers = [*(result["scores"][dimension] for dimension in DIMENSIONS), result["reward"]]
    written = ["-" if number is None else f"{number:.3f}" for number in numbers]
    return [str(result["response"]), *written, " ".join(result["flags"])]
