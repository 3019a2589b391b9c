"""`medreward screen fit`: a policy from labelled answers."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medreward.cli.asking import read_weights, weights_option
from medreward.cli.options import F, json_option, option
from medreward.cli.output import input_digest
from medreward.cli.screen_data import FILE, data_options, read_all
from medreward.cli.show import print_json, print_panel, print_table
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Flag

if TYPE_CHECKING:
    from medreward.screening.policy import Rule

GUARDS: Final = ("auto", "none", "uncertainty", "relevance")


def rate_option(flag: str, default: float, help_: str) -> Callable[[F], F]:
    """Returns a flag that takes a number between 0 and 1, neither of which it may be."""
    between = click.FloatRange(0, 1, min_open=True, max_open=True)
    return option(flag, type=between, default=default, show_default=True, help=help_)


def read_flags(context: click.Context, flag: click.Parameter, text: str | None) -> tuple[Flag, ...] | None:
    """Returns the flags of a list; raises BadParameter for one that no answer can have."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in [*Flag]:
            raise click.BadParameter(f"there is no flag {name!r}; there are {', '.join(Flag)}")
    return tuple(map(Flag, names))


@click.command("fit")
@data_options
@rate_option("--max-false-allow", 0.02, "largest share of wrong answers that may be allowed")
@rate_option("--max-false-block", 0.01, "largest share of right answers that may be blocked")
@rate_option("--confidence", 0.95, "how sure each of the two shares must be")
@option("--out", type=FILE, required=True, metavar="POLICY", help="file to write (.toml), or a folder of policies")
@option("--name", help="name of the policy; without it, by --out")
@option("--version", help="version of the policy; without it, by --out, else 1")
@option("--dimension", type=click.Choice(DIMENSIONS), default="accuracy", show_default=True, help="whose logit decides")
@option("--on", type=click.Choice(["dimension", "reward"]), default="dimension", show_default=True, help="what decides")
@weights_option
@option(
    "--review-below",
    callback=read_weights,
    metavar="DIMENSION=LOGIT,…",
    help="answers with a lower logit go to review, whatever decides",
)
@option(
    "--review-flags",
    callback=read_flags,
    metavar="FLAG,…",
    help="answers with one of these flags go to review; without it, all but thinking_stripped",
)
@option(
    "--guard",
    type=click.Choice(GUARDS),
    default="auto",
    show_default=True,
    help="rule before the threshold that sends to review what the model is unsure of, or what is off the question; "
    "auto: the one that allows most right answers, chosen on a third of the images where there are enough",
)
@option("--by-department", is_flag=True, help="a threshold of its own for each department with enough labels")
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool, **given: Any) -> int:
    """Make a policy whose rate of allowed wrong answers is bounded, from answers labelled right or wrong.

    Exit 1: the labels cannot show the bound; what is missing is said, and nothing is written.
    """
    from medreward.bench.screening.fitting import fit as fit_policy
    from medreward.bench.screening.wish import REVIEWED, NotShownError, Wish
    from medreward.bench.screening.writing import as_json as fit_json
    from medreward.bench.screening.writing import promise, published, text_of, write
    from medreward.screening.policy import read_policy

    target = target_of(given["out"], given["name"], given["version"])
    if target.file.exists():
        raise ConfigurationError(
            f"{target.file} already exists, and a published version does not change: name another --version"
        )
    if given["weights"] and given["on"] != "reward":
        raise click.UsageError("--weights is for --on reward")
    model, (answers,) = asyncio.run(read_all(context, given, [(given["data"], False)], given["weights"]))
    wish = Wish(
        target.name,
        target.version,
        model.fingerprint,
        input_digest(given["data"]),
        given["max_false_allow"],
        given["max_false_block"],
        given["confidence"],
        given["dimension"] if given["on"] == "dimension" else None,
        given["weights"],
        REVIEWED if given["review_flags"] is None else given["review_flags"],
        given["review_below"] or {},
        given["guard"],
        given["by_department"],
    )
    try:
        found = fit_policy(answers, wish)
    except NotShownError as missing:
        if as_json:
            print_json({"out": None, "missing": str(missing)})
        else:
            click.echo(f"no policy was written: {missing}", err=True)
        return 1
    made = {
        "Model": f"{model.name} {model.version}, {model.runtime}, evidence: {model.evidence}",
        "Labels of": f"{given['data'].name} ({wish.data})",
    }
    text = text_of(found, made)
    file = write(target.file, text) if target.policies is None else published(target.policies, found, text)
    if as_json:
        print_json(fit_json(found, file, read_policy(file).digest))
    else:
        print_panel(f"policy {target.name} {target.version}", promise(found), "plain")
        rows = [
            [rule.name, rule.verdict, str(rule.flag or rule.measure), rule.dimension or "", _threshold(rule)]
            for rule in found.policy.rules
        ]
        print_table(["rule", "verdict", "on", "dimension", "where"], rows)
        click.echo(f"{file}")
    return 0


def _threshold(rule: "Rule") -> str:
    if rule.threshold is None:
        return "it is there"
    return f"below {rule.below}" if rule.below is not None else f"{rule.at_least} and above"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a policy is written: one file, or its place in a folder of policies."""

    file: Path
    name: str
    version: str
    policies: Path | None


def target_of(out: Path, name: str | None, version: str | None) -> Target:
    """Returns where to write. `strict/2.toml` is version 2 of strict, `strict.toml` version 1, and what ends otherwise
    is a folder of policies; flags win."""
    if out.suffix != ".toml":
        name, version = name or "screen", version or "1"
        return Target(out / name / f"{version}.toml", name, version, out)
    if out.stem[:1].isdigit() and out.absolute().parent.name:
        return Target(out, name or out.absolute().parent.name, version or out.stem, None)
    return Target(out, name or out.stem, version or "1", None)
