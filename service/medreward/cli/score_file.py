"""`medreward score-file`: a file of rows in, the same rows with their scores out."""

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import AsyncGenerator, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from medreward.cli.asking import (
    asking_options,
    chosen_url,
    concurrency_option,
    ray_options,
    retry_seconds_option,
    where_options,
)
from medreward.cli.client import open_client, result_json
from medreward.cli.options import json_option
from medreward.cli.output import Output, RunRecord, input_digest
from medreward.cli.rows import (
    ITEM,
    SUFFIXES,
    ItemShape,
    Row,
    count_rows,
    group_rows,
    is_parquet,
    open_parquet,
    read_images,
    read_item,
    read_rows,
)
from medreward.cli.show import print_json, progress_bar
from medreward.clients import AsyncClient, ClientError, Refused, Tls
from medreward.clients.errors import is_server_away
from medreward.clients.score import Score
from medreward.errors import ITEM_CODES, RETRYABLE, ConfigurationError, MedRewardError


@click.command("score-file")
@click.argument("source", metavar="IN", type=click.Path(path_type=str))
@click.argument("target", metavar="OUT", type=click.Path(path_type=str))
@where_options
@asking_options
@concurrency_option
@retry_seconds_option
@ray_options
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    source: str,
    target: str,
    url: str | None,
    key: str | None,
    tls: Tls | None,
    weights: dict[str, float] | None,
    viewpoint: str | None,
    too_long: str,
    thinking: str,
    steps: str,
    concurrency: int,
    retry_seconds: float,
    ray: str | None,
    ray_actors: int | None,
    ray_batch_rows: int,
    as_json: bool,
    **local: Any,
) -> int:
    """Score the rows of a JSONL or Parquet file. Started again, it goes on where it stopped.

    A row has a question, a response or responses, and an image: a path relative to IN, base64, bytes, or null. For a
    model that reads them it may have images, a list, and history, the turns before the question.

    With --ray the rows are scored on a Ray cluster, and the output is the same. IN may then be a folder of such files
    too, and IN, OUT and images may be URIs of object storage such as s3://bucket/rows.parquet; see docs/ray.md.
    """
    options = {
        "weights": weights,
        "too_long": too_long,
        "thinking": thinking,
        "steps": steps,
        "viewpoint": viewpoint,
    }
    chosen = chosen_url(context, url, local["model"])
    if ray:
        if chosen:
            raise click.UsageError("--ray and --url exclude each other: the actors hold the model themselves")
        from medreward.cli.score_ray import Asked, score_on_ray, seen_from_a_node

        source, target, local["model"] = map(seen_from_a_node, (source, target, local["model"]))
        asked = Asked(source, target, local, options, concurrency, retry_seconds, ray_batch_rows)
        summary = score_on_ray(ray, ray_actors, asked)
    else:
        how = {"tls": tls, "concurrency": concurrency, "retry_seconds": retry_seconds}
        output = score_here(Path(source), Path(target), options, concurrency, open_client(chosen, key, local, **how))
        summary = {"rows": output.rows, "failed": output.failed}
    if as_json:
        print_json({"out": target, **summary})
    else:
        click.echo(f"{summary['rows']} rows, {summary['failed']} failed: {target}")
    return int(summary["failed"] > 0)


def score_here(
    source: Path,
    target: Path,
    options: Mapping[str, Any],
    concurrency: int,
    connecting: AbstractAsyncContextManager[AsyncClient],
) -> Output:
    """Scores the file with one client and returns its output. Raises ConfigurationError where that cannot go on."""
    if source.suffix not in SUFFIXES or target.suffix != source.suffix:
        raise click.UsageError("IN and OUT must both end in .jsonl or both in .parquet")

    async def run(digest: str) -> Output:
        async with connecting as client:
            model = await client.pin_model()
            output = Output(target, RunRecord(digest, model.fingerprint, model.runtime.dtype, **options))
            with contextlib.closing(output):
                if not output.done:
                    await Job(source, options, concurrency, client).fill(output, model.as_json())
                output.finish(id_type_of(source))
            return output

    try:
        return asyncio.run(run(input_digest(source)))
    except OSError as error:
        raise ConfigurationError(f"{error.filename or target}: {error.strerror or error}") from None


@dataclass(frozen=True, slots=True)
class Job:
    """Scores the rows of a file; `options` are those of each call: weights, too_long, thinking, steps."""

    source: Path
    options: Mapping[str, Any]
    concurrency: int
    client: AsyncClient
    columns: Collection[str] = (*ITEM, "id")  # of a Parquet file, those that are read

    async def fill(self, output: Output, model: Mapping[str, str]) -> None:
        """Appends the rows that the output does not have yet; raises ConfigurationError where the server went away."""
        with progress_bar("rows") as advance:
            total = count_rows(self.source) if sys.stderr.isatty() else 0
            rows = read_rows(self.source, output.rows, self.columns)
            async with contextlib.aclosing(self.results(rows)) as results:
                try:
                    async for row in results:
                        output.append({**row, "model": model})
                        advance(output.rows, total)
                except ClientError as error:
                    raise ConfigurationError(
                        f"stopped after {output.rows} rows; run it again to go on: {error}"
                    ) from None

    async def results(self, rows: Iterator[Row]) -> AsyncGenerator[dict[str, Any]]:
        """Gives what is written for each row, in their order, some in flight ahead of the one that is due."""
        flying: deque[asyncio.Task[list[dict[str, Any]]]] = deque()
        ahead = 0  # rows
        try:
            for group in group_rows(rows, self.concurrency):
                flying.append(asyncio.create_task(self.score(group)))
                ahead += len(group)
                while ahead >= 2 * self.concurrency:
                    for row in await flying.popleft():
                        ahead -= 1
                        yield row
            while flying:
                for row in await flying.popleft():
                    yield row
        finally:
            for task in flying:
                task.cancel()
            await asyncio.gather(*flying, return_exceptions=True)

    async def score(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Scores rows that share images, turns and question as one group.

        Raises Refused where going on would fail every row.
        """
        items: list[ItemShape | MedRewardError] = []
        for row in rows:
            try:
                items.append(read_item(row))
            except MedRewardError as error:
                items.append(error)
        scores: Iterator[Score] = iter(())
        to_ask = [item for item in items if isinstance(item, ItemShape)]
        if to_ask:
            first, texts = to_ask[0], [text for item in to_ask for text in item.texts]
            try:
                images = await asyncio.to_thread(read_images, first, self.source.parent)
                answers = self.client.score(images, first.question, texts, history=first.turns, **self.options)
                scores = iter(await answers)
            except MedRewardError as error:
                items = [error if isinstance(item, ItemShape) else item for item in items]
        return [row_result(row, item, scores) for row, item in zip(rows, items, strict=True)]


def row_result(row: Row, item: ItemShape | MedRewardError, scores: Iterator[Score]) -> dict[str, Any]:
    """Returns what is written for the row, which takes the scores of its responses from `scores`."""
    fields = row.fields or {}
    about: dict[str, Any] = {"row": row.number}
    if "id" in fields:
        id_ = fields["id"]
        about["id"] = id_ if id_ is None or isinstance(id_, str | int) else str(id_)
    if isinstance(item, MedRewardError):
        return {**about, "results": None, "error": _error(item.code, item.detail, item.field)}
    answers = list(islice(scores, len(item.texts)))
    for score in answers:
        if score.error and is_server_away(score.error):
            raise Refused(score.error, score.message or "", retryable=True)
    codes = {score.error for score in answers}
    code = codes.pop() if len(codes) == 1 else None
    if code and (code in RETRYABLE or code not in ITEM_CODES):  # then a server refuses the row as a whole
        return {**about, "results": None, "error": _error(code, answers[0].message, answers[0].field)}
    results = [result_json(score, place, fields) for place, score in enumerate(answers)]
    return {**about, "results": results, "error": None}


def _error(code: str, message: str | None, field: str | None) -> dict[str, str]:
    return {"code": str(code), "message": message or "", "field": field or ""}


def id_type_of(source: Path) -> Any:
    """Returns the type of a Parquet file's ids where it is one that JSON keeps, else text; None without ids."""
    if not is_parquet(source):
        return None
    import pyarrow

    schema = open_parquet(source).schema_arrow
    if "id" not in schema.names:
        return None
    kind = schema.field("id").type
    return kind if pyarrow.types.is_integer(kind) else pyarrow.string()
