"""`medreward score`: one question, some responses, a table."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from medreward.cli.asking import WholeText, asking_options, chosen_url, where_options
from medreward.cli.client import error_json, open_client, result_json
from medreward.cli.options import json_option, option
from medreward.cli.show import print_json, print_table
from medreward.clients import Tls
from medreward.clients.score import Reply, Score
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Explain, InlineImage, Item, Steps, Thinking, Viewpoints


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
@option("--explain", is_flag=True, help="say for each sentence of a response what it adds to the reward")
@option("--viewpoints", is_flag=True, help="say what the reward is under each viewpoint of the model")
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
    explain: bool,
    viewpoints: bool,
    url: str | None,
    key: str | None,
    tls: Tls | None,
    weights: dict[str, float] | None,
    viewpoint: str | None,
    too_long: str,
    thinking: str,
    steps: str,
    as_json: bool,
    **local: Any,
) -> int:
    """Score responses to a question, in this process or on a server."""
    try:
        images = (InlineImage(image.read_bytes()),) if image else ()
    except OSError as error:
        raise ConfigurationError(f"the image {image} cannot be read: {error.strerror}") from None

    async def ask() -> Reply:
        async with open_client(chosen_url(context, url, local["model"]), key, local, tls=tls) as client:
            item = Item(question, responses, images)
            why = Explain.SENTENCES if explain else Explain.NONE
            return await client.ask(
                [item],
                weights=weights,
                too_long=too_long,
                thinking=thinking,
                explain=why,
                steps=steps,
                viewpoint=viewpoint,
                viewpoints=Viewpoints.ALL if viewpoints else Viewpoints.NONE,
            )

    reply = reply_json(asyncio.run(ask()))
    if as_json:
        print_json(reply)
    else:
        numbers = [*DIMENSIONS, "reward"]
        print_table(["response", *numbers, "flags"], map(_table_row, reply["results"]), numbers)
        if explain:
            rows = (row for each in reply["results"] for row in _sentence_rows(each, responses[each["response"]]))
            print_table(["response", "adds to the reward", "sentence"], rows, ["adds to the reward"])
        if steps != Steps.NONE:
            rows = (row for each in reply["results"] for row in _step_rows(each, responses[each["response"]]))
            print_table(["response", "reward up to here", "step"], rows, ["reward up to here"])
        if thinking == Thinking.BOTH:
            rows = (row for each in reply["results"] for row in _aside_rows(each))
            print_table(["response", "reward without thinking", "flags"], rows, ["reward without thinking"])
        if viewpoints:
            _print_viewpoints(reply["results"])
        model = reply["model"]
        click.echo(f"{model['name']} {model['version']}, {model['runtime']}, evidence: {model['evidence']}")
        click.echo(model["fingerprint"])
    return int(any(result["status"] != "ok" for result in reply["results"]))


def reply_json(reply: Reply) -> dict[str, Any]:
    """Returns the reply as `/v1/score` writes it."""
    item = {"responses": reply.scores[0]}
    results = [
        result_json(score, place, item)
        | ({} if score.error else {"cached": score.cached})
        | _explain_json(score, place)
        | _viewpoints_json(score)
        for place, score in enumerate(reply.scores[0])
    ]
    return {"id": reply.id, "model": reply.model.as_json(), "results": results, "timings_ms": reply.timings_ms}


def _explain_json(score: Score, place: int) -> dict[str, Any]:
    if score.explain is None:
        return {}
    parts = [
        {"start": part.start, "end": part.end, "logits": part.logits, "reward": part.reward}
        | ({"error": error_json(part.error, part.message, f"responses/{place}")} if part.error else {})
        for part in score.explain
    ]
    return {"explain": parts}


def _viewpoints_json(score: Score) -> dict[str, Any]:
    if score.viewpoints is None:
        return {}
    return {"viewpoints": score.viewpoints, "viewpoint_spread": score.viewpoint_spread}


def _print_viewpoints(results: list[dict[str, Any]]) -> None:
    """Prints the reward of each response under each viewpoint, and how far these lie apart."""
    names = list(next((result["viewpoints"] for result in results if result.get("viewpoints")), {}))
    if not names:
        click.echo("the model has no viewpoints")
        return
    rows = [
        [str(result["response"]), *(f"{n:.3f}" for n in (*result["viewpoints"].values(), result["viewpoint_spread"]))]
        for result in results
        if result["status"] == "ok"
    ]
    print_table(["response", *names, "spread"], rows, [*names, "spread"])


def _table_row(result: dict[str, Any]) -> list[str]:
    if result["status"] != "ok":
        error = result["error"]
        dashes = ["-"] * (len(DIMENSIONS) + 1)
        return [str(result["response"]), *dashes, f"{error['code']}: {error['message']}"]
    numbers = [*(result["scores"][dimension] for dimension in DIMENSIONS), result["reward"]]
    cells = ["-" if number is None else f"{number:.3f}" for number in numbers]
    return [str(result["response"]), *cells, " ".join(result["flags"])]


def _step_rows(result: dict[str, Any], response: str) -> Iterator[list[str]]:
    """Yields a row for each step of the response. A response that was cut or not scored has none."""
    start = 0
    for step in result.get("steps", ()):
        reward = "-" if step["reward"] is None else f"{step['reward']:.3f}"
        text = " ".join(response[start : step["end"]].split())
        why = f" ({step['error']['code']}: {step['error']['message']})" if "error" in step else ""
        yield [str(result["response"]), reward, f"{text}{why}"]
        start = step["end"]


def _aside_rows(result: dict[str, Any]) -> Iterator[list[str]]:
    if aside := result.get("without_thinking"):
        why = f"{aside['error']['code']}: {aside['error']['message']}" if "error" in aside else " ".join(aside["flags"])
        yield [str(result["response"]), "-" if aside["reward"] is None else f"{aside['reward']:.3f}", why]


def _sentence_rows(result: dict[str, Any], response: str) -> Iterator[list[str]]:
    """Yields a row for each sentence of the response. A response that was cut or not scored has none."""
    for part in result.get("explain", ()):
        adds = "-" if part["reward"] is None else f"{part['reward']:+.3f}"
        sentence = " ".join(response[part["start"] : part["end"]].split())
        why = f" ({part['error']['code']}: {part['error']['message']})" if "error" in part else ""
        yield [str(result["response"]), adds, f"{sentence}{why}"]
