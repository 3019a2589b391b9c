"""`medreward score-file`: a file of rows in, the same rows with their scores out."""

import asyncio
import contextlib
import random
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from medreward.cli.asking import (
    asking_options,
    beside,
    chosen_url,
    concurrency_option,
    retry_seconds_option,
    where_options,
)
from medreward.cli.options import json_option
from medreward.cli.output import Asked, Output, input_digest
from medreward.cli.rows import SUFFIXES, Row, count_rows, is_parquet, open_parquet, read_rows, request_body
from medreward.cli.scorer import Scorer, UnreachableError, open_scorer
from medreward.cli.show import print_json, progress_bar
from medreward.errors import RETRYABLE, Code, ConfigurationError, MedRewardError

FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 10.0
#: Not this row's fault: going on would fail every row behind it too.
FAULTS_OF_THE_SERVER: Final = frozenset({Code.OVERLOADED, Code.NOT_READY, Code.VERSION_CHANGED})


@dataclass(frozen=True, slots=True)
class Job:
    source: Path
    beside: Mapping[str, Any]
    concurrency: int
    retry_seconds: float


@click.command("score-file")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@where_options
@asking_options
@concurrency_option
@retry_seconds_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    source: Path,
    target: Path,
    url: str | None,
    key: str | None,
    weights: dict[str, float] | None,
    too_long: str,
    thinking: str,
    concurrency: int,
    retry_seconds: float,
    as_json: bool,
    **local: Any,
) -> int:
    """Score the rows of a JSONL or Parquet file. Started again, it goes on where it stopped.

    A row has a question, a response or responses, and an image: a path relative to IN, base64, bytes, or null.
    """
    if source.suffix not in SUFFIXES or target.suffix != source.suffix:
        raise click.UsageError("IN and OUT must both end in .jsonl or both in .parquet")
    job = Job(source, beside(weights, too_long, thinking), concurrency, retry_seconds)

    async def run(digest: str) -> Output:
        async with open_scorer(chosen_url(context, url, local["model"]), key, local, concurrency) as scorer:
            about = await scorer.model()
            ran_in = about["runtime"].rpartition("/")[2]
            output = Output(target, Asked(digest, about["fingerprint"], ran_in, weights, too_long, thinking))
            with contextlib.closing(output):
                await _score_missing(job, scorer, about, output)
            return output

    try:
        output = asyncio.run(run(input_digest(source)))
    except OSError as error:
        raise ConfigurationError(f"{error.filename or target}: {error.strerror or error}") from None
    _report(output, target, as_json)
    return int(output.failed > 0)


async def _score_missing(job: Job, scorer: Scorer, model: Mapping[str, str], output: Output) -> None:
    if not output.done:
        with progress_bar("rows") as advance:
            total = count_rows(job.source) if sys.stderr.isatty() else 0
            async with contextlib.aclosing(_scored(job, scorer, output.rows)) as scored:
                try:
                    async for row in scored:
                        output.append({**row, "model": model})
                        advance(output.rows, total)
                except (MedRewardError, UnreachableError) as error:
                    raise ConfigurationError(
                        f"score-file stopped after {output.rows} rows; run it again to go on: {error}"
                    ) from None
    output.finish(_id_type(job.source))


async def _scored(job: Job, scorer: Scorer, start: int) -> AsyncGenerator[dict[str, Any]]:
    """Rows in their order, some in flight ahead of the one that is due."""
    slots = asyncio.Semaphore(job.concurrency)
    flying: deque[asyncio.Task[dict[str, Any]]] = deque()
    try:
        for row in read_rows(job.source, start):
            flying.append(asyncio.create_task(_score_row(row, job, scorer, slots)))
            if len(flying) >= 2 * job.concurrency:
                yield await flying.popleft()
        while flying:
            yield await flying.popleft()
    finally:
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)


async def _score_row(row: Row, job: Job, scorer: Scorer, slots: asyncio.Semaphore) -> dict[str, Any]:
    written: dict[str, Any] = {"row": row.number}
    if row.fields and "id" in row.fields:
        written["id"] = _plain(row.fields["id"])
    try:
        async with slots:
            body = await asyncio.to_thread(request_body, row, job.source.parent, job.beside)
            reply = await _with_retries(scorer, body, job.retry_seconds)
    except MedRewardError as error:
        if error.code in FAULTS_OF_THE_SERVER:
            raise
        return {**written, "results": None, "error": _error(error)}
    return {**written, "results": [_result(result) for result in reply["results"]], "error": None}


async def _with_retries(scorer: Scorer, body: bytes, budget: float) -> dict[str, Any]:
    give_up = time.monotonic() + budget
    pause = FIRST_PAUSE
    while True:
        try:
            return await scorer.score(body)
        except (MedRewardError, UnreachableError) as error:
            if isinstance(error, MedRewardError) and error.code not in RETRYABLE:
                raise
            asked = getattr(error, "retry_after", None) or 0.0
            wait = max(asked, pause * random.uniform(0.5, 1))  # noqa: S311  # spreads clients, guards nothing
            if time.monotonic() + wait > give_up:
                raise
        await asyncio.sleep(wait)
        pause = min(2 * pause, LONGEST_PAUSE)


def _result(result: Mapping[str, Any]) -> dict[str, Any]:
    """Without `cached`: it tells how an answer came about, and a second run must write the same file."""
    return {key: value for key, value in result.items() if key != "cached"}


def _error(error: MedRewardError) -> dict[str, str]:
    return {"code": str(error.code), "message": error.detail, "field": error.field}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int) else str(value)


def _id_type(source: Path) -> Any:
    """The type of a Parquet file's ids where it is one that JSON keeps, else text; None without ids."""
    if not is_parquet(source):
        return None
    import pyarrow

    schema = open_parquet(source).schema_arrow
    if "id" not in schema.names:
        return None
    kind = schema.field("id").type
    return kind if pyarrow.types.is_integer(kind) else pyarrow.string()


def _report(output: Output, target: Path, as_json: bool) -> None:
    if as_json:
        print_json({"out": str(target), "rows": output.rows, "failed": output.failed})
    else:
        click.echo(f"{output.rows} rows, {output.failed} failed: {target}")
