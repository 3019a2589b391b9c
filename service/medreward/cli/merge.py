"""`medreward merge`: experts of one base to one model, and whether it keeps what each of them can do."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medreward.cli.options import json_option, option
from medreward.cli.show import coefficient, print_json, print_table, progress_bar, share
from medreward.errors import ConfigurationError
from medreward.types import Options, Thinking, TooLong

if TYPE_CHECKING:
    from medreward.artifacts.manifest import Manifest
    from medreward.bench.cases import DataSet
    from medreward.bench.finished import FinishedRun
    from medreward.bench.gate.checks import Check
    from medreward.bench.gate.policy import Policy
    from medreward.lab.merging.merge import Merged

METHODS: Final = ("linear", "ties", "dare_ties", "ram", "apart")
FOLDER: Final = "merge"  # of what is about the merge, in the merged model's own
AT_ONCE: Final = 4  # cases in flight


def read_numbers(context: click.Context, flag: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Returns the numbers that `1,0.5` names; raises BadParameter unless all are 0 or more and one is above."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 <= number < float("inf") for number in numbers) or not any(numbers):
        raise click.BadParameter("give a number of 0 or more for each expert, as in 1,0.5; one of them above 0")
    return numbers


def folder_and_department(text: str) -> tuple[Path, str | None]:
    """Returns what `DEPARTMENT=DIR` or `DIR` names; a folder may have the sign in its own name."""
    department, _, folder = text.partition("=")
    return (Path(folder), department) if folder and not Path(text).is_dir() else (Path(text), None)


@click.command("merge")
@click.argument("experts", metavar="EXPERT…", nargs=-1, required=True)
@option(
    "--base",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="checkpoint that all experts are tuned from",
)
@option(
    "--method", required=True, type=click.Choice(METHODS), help="how contradicting changes become one: docs/merging.md"
)
@option("--out", required=True, type=click.Path(path_type=Path), metavar="DIR", help="new folder for the merged model")
@option("--name", metavar="NAME", help="name of the merged model; without it, that of its folder")
@option(
    "--expert-weights",
    callback=read_numbers,
    metavar="W,W,…",
    help="weight of each expert, relative to the others; without it all are equal",
)
@option(
    "--density",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.5,
    show_default=True,
    help="share of each expert's changes that counts; linear takes all",
)
@option("--scale", type=click.FloatRange(0), default=1.0, show_default=True, help="factor on the merged change")
@option("--seed", type=int, default=0, show_default=True, help="seed of what dare_ties drops")
@option(
    "--data", metavar="DATA", help="benchmark to test the merged model on against each expert: a folder, or phantom"
)
@option(
    "--policy",
    default="default",
    show_default=True,
    metavar="POLICY",
    help="policy of the release gate, whose margin and tests count",
)
@option("--skip-golden", is_flag=True, help="write no golden triples, for which the merged model has to be run once")
@json_option
def command(
    experts: tuple[str, ...],
    base: Path,
    method: str,
    out: Path,
    name: str | None,
    expert_weights: tuple[float, ...] | None,
    density: float,
    scale: float,
    seed: int,
    data: str | None,
    policy: str,
    skip_golden: bool,
    as_json: bool,
) -> int:
    """Merge experts of one base into one model that can be served, with a report on where they contradict each other.

    EXPERT is the folder of an adapter or of a whole checkpoint, with its manifest and its head. It may be written as
    DEPARTMENT=DIR: with --data it is then tested on the cases of that department or organ. Exit 1 if the experts cannot
    be merged, or if the data do not show that the merged model is as good as each of them on its own cases.

    The method apart merges nothing: it puts the base and the adapters of experts into one folder, to be served
    together. Each scores the items of its departments, written as A,B=DIR, and the base all others.
    """
    from medreward.backends.torch_vlm.adopt import plain_name
    from medreward.lab.merging.apart import put_together
    from medreward.lab.merging.merge import Named, merge
    from medreward.lab.merging.methods import How, Method

    if expert_weights and len(expert_weights) != len(experts):
        raise click.UsageError(f"--expert-weights has {len(expert_weights)} numbers for {len(experts)} experts")
    name = name or plain_name(out.resolve().name)
    named = [Named(*folder_and_department(text)) for text in experts]
    measuring = Measuring.read(data, policy) if data else None
    try:
        if method == "apart":
            return _print_together(put_together(base, named, out, name), out, as_json)
        how = How(Method(method), expert_weights or (1.0,) * len(experts), density, scale, seed)
        with progress_bar("weights") as progress:
            merged = merge(base, named, how, out, name, progress)
    except ConfigurationError as refusal:
        click.echo(f"medreward: the experts were not merged: {refusal}", err=True)
        return 1
    if not skip_golden:
        asyncio.run(add_golden(merged))
    checks = asyncio.run(measuring.checks(merged)) if measuring else []
    write_report(merged, checks)
    if as_json:
        print_json(facts_of(merged, checks))
    else:
        _print(facts_of(merged, checks))
    return int(any(check.status != "pass" for check in checks))


async def add_golden(merged: "Merged") -> None:
    """Scores a few phantoms with the merged model in this process, and pins their logits in its golden.json."""
    from medreward.cli.golden import golden_json
    from medreward.lab.merging.manifests import GOLDEN, rewrite_manifest

    (merged.folder / GOLDEN).write_text(await golden_json(merged.folder), "utf-8")
    rewrite_manifest(merged.folder, merged.fields)


@dataclass(frozen=True)
class Measuring:
    """The benchmark and the gate's policy that the merged model is held against each expert with."""

    data: str
    cases: "DataSet"
    policy: "Policy"

    @classmethod
    def read(cls, data: str, policy: str) -> "Measuring":
        """Returns them; fails with a ConfigurationError for a policy that has no test for this."""
        from medreward.bench.gate.policy import read_policy
        from medreward.bench.sources import open_set

        named = read_policy(policy).policy
        if not named.non_inferiority:
            raise ConfigurationError(f"policy {policy} has no [[non_inferiority]], by which experts are compared")
        return cls(data, open_set(data, None), named)

    async def checks(self, merged: "Merged") -> list["Check"]:
        """Runs the benchmark with the merged model and with each expert, and returns a check for each expert."""
        from medreward.bench.merging import ExpertRun, against_experts

        runs = merged.folder / FOLDER / "runs"
        of_merged = await self._run(merged.folder, runs / "merged")
        experts = [
            ExpertRun(e.name, await self._run(e.folder, runs / f"expert-{place}"), e.department)
            for place, e in enumerate(merged.experts)
        ]
        return against_experts(self.policy, of_merged, experts)

    async def _run(self, model: Path, out: Path) -> "FinishedRun":
        from medreward.bench.finished import open_run
        from medreward.bench.rewards import Rewards
        from medreward.bench.runner import Plan, run
        from medreward.cli.client import connect

        client = await connect(None, None, {"model": str(model)}, concurrency=AT_ONCE, store_images=False)
        settings = {"too_long": str(TooLong.ERROR), "thinking": str(Thinking.KEEP)}
        folder = await asyncio.to_thread(model.resolve)
        plan = Plan(self.data, out, settings, AT_ONCE, folder=folder, in_process=True)
        async with aclosing(Rewards(client, Options())) as chooser:
            with progress_bar(f"cases, {out.name}") as progress:
                await run(self.cases, chooser, plan, progress)
        return open_run(out)


def write_report(merged: "Merged", checks: Sequence["Check"]) -> None:
    """Writes the conflict report, as JSON and as a page, beside the merged model."""
    from medreward.bench.report.conflicts import conflicts_page

    folder = merged.folder / FOLDER  # not beside the weights: transformers reads every JSON file there
    folder.mkdir(exist_ok=True)
    report = {**merged.conflicts, "checks": [asdict(check) for check in checks]}
    (folder / "conflicts.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    (folder / "conflicts.html").write_text(conflicts_page(merged.manifest.name, merged.conflicts, checks), "utf-8")


def _print_together(manifest: "Manifest", out: Path, as_json: bool) -> int:
    """Prints what was put together, and returns 0."""
    experts = {name: list(expert.departments) for name, expert in manifest.experts.items()}
    if as_json:
        facts = {"name": manifest.name, "fingerprint": manifest.fingerprint, "folder": str(out)}
        print_json({**facts, "experts": experts})
    else:
        print_table(["expert", "departments"], [[name, ", ".join(some)] for name, some in experts.items()])
        click.echo(f"{manifest.name} in {out}, {manifest.fingerprint}")
    return 0


def facts_of(merged: "Merged", checks: Sequence["Check"]) -> dict[str, Any]:
    """Returns what is printed of a merge, as JSON can hold it."""
    return {
        "name": merged.manifest.name,
        "fingerprint": merged.manifest.fingerprint,
        "folder": str(merged.folder),
        "report": str(merged.folder / FOLDER / "conflicts.html"),
        "conflicts": merged.conflicts["whole"],
        "checks": [asdict(check) for check in checks],
        "keep_apart": [check.name.removeprefix("expert/") for check in checks if check.status != "pass"],
    }


def _print(facts: dict[str, Any]) -> None:
    conflicts = facts["conflicts"]
    rows = [["signs that disagree", share(conflicts["sign_disagreement"])], ["pruned", share(conflicts["pruned"])]]
    rows = [[name, f"{value}%"] for name, value in rows]
    rows += [[f"cosine {pair.replace('|', ', ')}", coefficient(value)] for pair, value in conflicts["cosine"].items()]
    print_table(["conflict", "of all layers"], rows, ["of all layers"])
    if facts["checks"]:
        columns = ["name", "status", "what"]
        print_table(columns, [[check[column] for column in columns] for check in facts["checks"]])
    for name in facts["keep_apart"]:
        click.echo(f"keep apart: {name}; the data do not show that the merged model is as good on its cases")
    click.echo(f"{facts['name']} in {facts['folder']}, {facts['fingerprint']}")
    click.echo(f"layer by layer: {facts['report']}")
