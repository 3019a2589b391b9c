"""`medreward screen run`: a file of rows in, the same rows with a verdict on each answer out."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medreward.cli.asking import chosen_url, concurrency_option, retry_seconds_option, text_options, where_options
from medreward.cli.client import open_client
from medreward.cli.options import json_option
from medreward.cli.output import Output, RunRecord, count_verdicts, input_digest
from medreward.cli.rows import ITEM, SUFFIXES, Row, read_item
from medreward.cli.score_file import Job, id_type_of
from medreward.cli.screen_policy import find_policy, policy_option, refuse_another_model, weights_of
from medreward.cli.show import print_json
from medreward.errors import Code, ConfigurationError, ItemError
from medreward.types import DIMENSIONS, Failed, Flag, Result, Scored, Verdict

if TYPE_CHECKING:
    from medreward.screening.deciding import Decider

#: The verdict of a row with several answers is the first of these that one of them has.
WORST_FIRST: Final = (Verdict.UNSCORED, Verdict.BLOCK, Verdict.REVIEW, Verdict.ALLOW)


@click.command("run")
@policy_option
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@where_options
@text_options
@concurrency_option
@retry_seconds_option
@json_option
@click.pass_context
def command(context: click.Context, /, source: Path, target: Path, as_json: bool, **given: Any) -> int:
    """Give a verdict on each row of a JSONL or Parquet file. Started again, it goes on where it stopped.

    A row has what `score-file` wants, and may have a department. Exit 1 if any row is unscored.
    """
    if source.suffix not in SUFFIXES or target.suffix != source.suffix:
        raise click.UsageError("IN and OUT must both end in .jsonl or both in .parquet")
    policy = find_policy(context, given)
    from medreward.screening.deciding import Decider

    url, weights = chosen_url(context, given["url"], given["model"]), weights_of(policy)
    local = {name: given[name] for name in ("model", "models_dir", "heads", "image_size", "dtype")}
    how = {name: given[name] for name in ("concurrency", "retry_seconds")}
    options = {"weights": weights, "too_long": given["too_long"], "thinking": given["thinking"]}

    async def run(digest: str) -> Output:
        async with open_client(url, given["key"], local, **how) as client:
            model = await client.pin_model()
            refuse_another_model(policy, model)
            texts = given["too_long"], given["thinking"]
            record = RunRecord(digest, model.fingerprint, model.runtime.dtype, weights, *texts, policy=policy.digest)
            output = Output(target, record)
            with contextlib.closing(output):
                if not output.done:
                    asking = source, options, given["concurrency"], client, (*ITEM, "id", "department")
                    decider = Decider(policy.policy, None)
                    await ScreenJob(*asking, decider=decider, policy=policy.as_json()).fill(output, model.as_json())
                output.finish(id_type_of(source))
            return output

    try:
        output = asyncio.run(run(input_digest(source)))
        verdicts = count_verdicts(target)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or target}: {error.strerror or error}") from None
    counted = {str(verdict): verdicts[verdict] for verdict in Verdict}
    if as_json:
        print_json({"out": str(target), "rows": output.rows, "policy": policy.as_json(), "verdicts": counted})
    else:
        about = f"policy {policy.policy.name} {policy.policy.version}"
        said = ", ".join(f"{count} {verdict}" for verdict, count in counted.items())
        click.echo(f"{output.rows} rows by {about}: {said}: {target}")
    return int(verdicts[Verdict.UNSCORED] > 0)


@dataclass(frozen=True, slots=True)
class ScreenJob(Job):
    """Scores the rows of a file and decides on each answer."""

    decider: "Decider" = field(kw_only=True)
    policy: Mapping[str, str] = field(kw_only=True)

    async def score(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Scores rows that share image and question as one group, and decides on each of their answers."""
        return [self._decided(row, found) for row, found in zip(rows, await Job.score(self, rows), strict=True)]

    def _decided(self, row: Row, found: dict[str, Any]) -> dict[str, Any]:
        """Returns what is written for a row. One that could not be asked about at all is unscored."""
        if found["results"] is None:
            return {**found, "verdict": Verdict.UNSCORED, "policy": self.policy}
        department = str((row.fields or {}).get("department") or "")
        results = []
        for result, text in zip(found["results"], read_item(row).texts, strict=True):
            decision = self.decider.decide(result_of(result), text, department)
            reasons = [asdict(reason) for reason in decision.reasons]
            results.append({**result, "verdict": decision.verdict, "reasons": reasons, "margin": decision.margin})
        given = {result["verdict"] for result in results}
        verdict = next(verdict for verdict in WORST_FIRST if verdict in given)
        return {**found, "results": results, "verdict": verdict, "policy": self.policy}


def result_of(result: Mapping[str, Any]) -> Result:
    """Returns a written result as the engine has it, which is what a policy decides on."""
    flags = tuple(flag for flag in Flag if flag in result["flags"])
    if result["status"] != "ok":
        return Failed(0, 0, ItemError(Code.INTERNAL, "not scored"), flags)
    scores, logits = (tuple(result[name][dimension] for dimension in DIMENSIONS) for name in ("scores", "logits"))
    doubt = result["uncertainty"]
    uncertainty = tuple(doubt[dimension] for dimension in DIMENSIONS) if doubt else None
    return Scored(0, 0, logits, scores, uncertainty, result["reward"], flags)
