"""`medreward bench`: measure a model, or a judge, on Med-RewardBench or a set in its format."""

import asyncio
import importlib.util
from collections import Counter
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from medreward.bench.cases import CONSTRUCTED, Case, DataSet, Images
from medreward.bench.importing import LAYOUTS, import_pairs
from medreward.bench.layout import undecodable, write
from medreward.cli import bench_agreement, bench_compare, bench_report
from medreward.cli.asking import (
    caller_options,
    concurrency_option,
    read_url,
    retry_seconds_option,
    text_options,
    url_option,
)
from medreward.cli.bench_report import REPORT, write_report
from medreward.cli.extras import install
from medreward.cli.gate import gate
from medreward.cli.options import departments_option, json_option, local_options, option
from medreward.cli.show import interval, print_json, print_table, progress_bar, share
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Options, Thinking, TooLong

if TYPE_CHECKING:
    from medreward.bench.chooser import Chooser

NEEDED: Final = ("pyarrow", "PIL", "huggingface_hub", "jinja2", "matplotlib", "scipy", "statsmodels")
LOCAL: Final = ("model", "models_dir", "heads", "image_size", "dtype")
CHOOSERS: Final = ("url", "model", "judge")


@click.group("bench")
def command() -> None:
    """Measure a model or a judge on Med-RewardBench, or on a set in its format."""
    for name in NEEDED:
        if not importlib.util.find_spec(name):
            raise ConfigurationError(f"medreward bench needs {name}, which is not installed; run {install('bench')}")


command.add_command(bench_compare.command)
command.add_command(bench_agreement.command)
command.add_command(bench_report.command)
command.add_command(gate)


@command.command()
@click.argument("data", metavar="DATA")
@departments_option
@json_option
def check(data: str, departments: Path | None, as_json: bool) -> int:
    """Look in DATA for what would make a figure wrong. Exit 2 if anything does.

    DATA is a folder, org/name@revision on the hub, or phantom.
    """
    from medreward.bench.sources import open_set

    whole = open_set(data, departments)
    whole = DataSet(whole.cases, [*whole.findings, *undecodable(case for case in whole.cases if case.image)])
    if as_json:
        findings = [asdict(one) for one in whole.findings]
        print_json({"data": data, "cases": len(whole.cases), "digest": whole.digest, "findings": findings})
    else:
        rows = [
            [one.where, "" if one.id is None else str(one.id), one.what, "fatal" if one.fatal else ""]
            for one in whole.findings
        ]
        if rows:
            print_table(["where", "id", "what", ""], rows)
        click.echo(f"{len(whole.cases)} cases, {len(whole.findings)} findings, {len(whole.fatal)} of them fatal")
    return 2 if whole.fatal or not whole.cases else 0


@command.command("import")
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@option("--layout", type=click.Choice([*LAYOUTS]), required=True, help="the layout of IN (docs/bench.md)")
@option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="decides which answer is A, and which wrong answers are taken",
)
@json_option
def import_(source: Path, target: Path, layout: str, seed: int, as_json: bool) -> int:
    """Convert another data set, and write it in the benchmark's format into the new folder OUT."""
    if target.exists():
        raise ConfigurationError(f"{target} already exists; name a folder that does not exist yet")
    pairs = import_pairs(layout, source, seed)
    cases = [pair.case(seed) for pair in pairs]
    write(target, cases, {case.key: pair.columns for case, pair in zip(cases, pairs, strict=True)})
    constructed = sum(case.evidence == CONSTRUCTED for case in cases)
    if as_json:
        print_json({"out": str(target), "cases": len(cases), "constructed": constructed})
    else:
        click.echo(f"{len(cases)} cases, {constructed} of them constructed: {target}")
    return 0


@command.command()
@option("--data", required=True, metavar="DATA", help="a folder, org/name@revision on the hub, or phantom")
@departments_option
@option("--out", type=click.Path(path_type=Path), required=True, metavar="RUN", help="folder of the run")
@url_option(read_url)
@caller_options
@local_options
@option("--judge", metavar="BASE_URL", help="OpenAI-compatible endpoint to measure as a judge, as in http://host/v1")
@option("--judge-model", metavar="NAME", help="name of the judge's model at that endpoint")
@option("--judge-key", hidden=True, help="its key; a variable only, for flags are seen by others")
@option(
    "--judge-prompt",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="the judge's prompt; it must hold {question}, {answer_a} and {answer_b}",
)
@option(
    "--samples", type=click.IntRange(1), default=1, show_default=True, help="how often a judge is asked in each order"
)
@option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="temperature of a judge")
@option(
    "--max-tokens", type=click.IntRange(1), help="longest reply of a judge, in tokens; without it the endpoint decides"
)
@option("--price-in", type=click.FloatRange(0), help="price of a million tokens that a judge reads")
@option("--price-out", type=click.FloatRange(0), help="price of a million tokens that a judge writes")
@text_options
@option("--limit", type=click.IntRange(1), help="ask about this many cases, the first ones")
@option(
    "--images",
    type=click.Choice([str(images) for images in Images]),
    default=str(Images.OWN),
    show_default=True,
    help="what is shown: each case's own image, a plain grey one of its size (blank), no image, or another case's",
)
@concurrency_option
@retry_seconds_option
@json_option
@click.pass_context
def run(context: click.Context, /, as_json: bool, **given: Any) -> int:
    """Ask about every case, and write predictions, tables and a report into RUN.

    A run that was stopped goes on where it stopped when the same command is started again.
    """
    try:
        summary, data = asyncio.run(measure(context, given))
    except OSError as error:
        raise ConfigurationError(f"{error.filename or given['out']}: {error.strerror or error}") from None
    write_report(given["out"], {case.key: case for case in data.cases})
    if as_json:
        print_json(summary)
    else:
        _print_summary(summary, data.cases[: given["limit"]], given["out"])
    return 0


async def measure(context: click.Context, given: dict[str, Any]) -> tuple[dict[str, Any], DataSet]:
    """Returns the run's summary and the set, once every case has been asked about."""
    from medreward.bench.runner import Plan, run
    from medreward.bench.sources import open_set

    by_flag = [name for name in CHOOSERS if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if by_flag:  # a flag wins over what stands in the environment
        given.update({name: None for name in CHOOSERS if name not in by_flag})
    if sum(given[name] is not None for name in CHOOSERS) != 1:
        raise click.UsageError("name exactly one of --url, --model and --judge")
    data = await asyncio.to_thread(open_set, given["data"], given["departments"])
    chooser, settings = judge(given) if given["judge"] else await reward_model(given)
    plan = Plan(
        given["data"],
        given["out"],
        settings,
        given["concurrency"],
        given["limit"],
        Images(given["images"]),
        folder=model_folder(given),
        in_process=not given["url"] and not given["judge"],
    )
    async with aclosing(chooser):
        with progress_bar("cases") as progress:
            return await run(data, chooser, plan, progress), data


async def reward_model(given: dict[str, Any]) -> tuple["Chooser", dict[str, Any]]:
    """Returns the reward model that the flags name, and the settings that decide what it chooses."""
    from medreward.bench.rewards import Rewards
    from medreward.cli.client import connect

    options = Options(TooLong(given["too_long"]), Thinking(given["thinking"]))
    settings = {"too_long": str(options.too_long), "thinking": str(options.thinking)}
    how = {name: given[name] for name in ("tls", "concurrency", "retry_seconds")}
    local = {name: given[name] for name in LOCAL}
    return Rewards(await connect(given["url"], given["key"], local, **how, store_images=False), options), settings


def judge(given: dict[str, Any]) -> tuple["Chooser", dict[str, Any]]:
    """Returns the judge that the flags name, and the settings that decide what it chooses."""
    from medreward.bench.chat import Chat
    from medreward.bench.judge import Judge, JudgeSettings, Prices, read_prompt

    if not given["judge_model"]:
        raise click.UsageError("--judge needs --judge-model")
    prompt = read_prompt(given["judge_prompt"])
    settings = JudgeSettings(given["judge_model"], prompt, given["samples"], given["temperature"], given["max_tokens"])
    chat = Chat(given["judge"], given["judge_key"], given["concurrency"], given["retry_seconds"])
    return Judge(chat, settings, Prices(given["price_in"], given["price_out"])), settings.json()


def model_folder(given: dict[str, Any]) -> Path | None:
    """Returns the folder of a model that runs in this process, where the gate looks for its golden triples."""
    from medreward.artifacts.repository import bundled_models, resolve
    from medreward.cli.serve import read_settings

    if not given["model"] or given["model"] == "fake":
        return None
    settings = read_settings(**{name: given[name] for name in LOCAL})
    return resolve(settings.model, settings.models_dir or bundled_models()).resolve()


def _print_summary(summary: dict[str, Any], cases: Iterable[Case], out: Path) -> None:
    from medreward.bench.report.headline import labels_of

    numbers = ["accuracy", "95%", "macro", "n", "correct", "ties", "unanswered", "by length alone", "by position alone"]
    rows, missing = [], []
    for dimension in DIMENSIONS:
        micro, macro = (summary["strict"][table][dimension] for table in ("micro", "macro"))
        counts = [str(micro[name]) for name in ("n", "correct", "ties", "unanswered")]
        shortcuts = [share(accuracy) for accuracy in summary["shortcuts"][dimension].values()]
        accuracies = share(micro["accuracy"]), interval(micro["ci95"]), share(macro["accuracy"])
        rows.append([dimension, *accuracies, *counts, *shortcuts])
        if micro["n"] and micro["accuracy"] is None:
            missing.append(dimension)
    print_table(["dimension", *numbers], rows, numbers)
    if missing:
        click.echo(f"The model has no {', '.join(missing)}, so nothing was measured there.")
    statuses = ", ".join(f"{count} {status}" for status, count in summary["statuses"].items())
    labels = labels_of(Counter(case.evidence or "not stated" for case in cases))
    click.echo(f"{labels.headline} {labels.detail}")
    click.echo(f"{summary['cases']} cases ({statuses}): {out / REPORT}")
