"""`medreward screen check`: what a policy does to labelled answers."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from medreward.cli.options import json_option, option
from medreward.cli.output import input_digest
from medreward.cli.screen_data import FILE, data_options, read_all
from medreward.cli.screen_policy import find_policy, policy_option, refuse_another_model, weights_of
from medreward.cli.show import interval, print_json, print_panel, print_table, share
from medreward.types import Verdict

if TYPE_CHECKING:
    from medreward.bench.screening.answers import Answer
    from medreward.bench.screening.checking import Checked, Share
    from medreward.bench.screening.estimating import Estimate
    from medreward.screening.policy import PolicyFile

ESTIMATES: Final[Mapping[str, str]] = {
    "false_allow": "of wrong answers, allowed",
    "wrong_among_allowed": "of allowed answers, wrong",
}


def read_rates(context: click.Context, flag: click.Parameter, text: str) -> tuple[float, ...]:
    """Returns the shares of a list; raises BadParameter for one that is no share."""
    try:
        rates = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is no list of shares, as in 0.05,0.16") from None
    if not all(0 < rate < 1 for rate in rates):
        raise click.BadParameter("each share of wrong answers must lie between 0 and 1")
    return rates


@click.command("check")
@policy_option
@data_options
@option(
    "--base-rate",
    "base_rates",
    callback=read_rates,
    default="0.05,0.16,0.3",
    show_default=True,
    metavar="SHARE,…",
    help="shares of wrong answers in production, for what a verdict is worth there",
)
@option(
    "--unlabelled",
    type=FILE,
    metavar="FILE",
    help="answers of production without labels, of which LABELLED is a random sample: rates there, estimated from both",
)
@option("--out", type=FILE, metavar="FILE", help="write the tables as one HTML file, too")
@json_option
@click.pass_context
def command(context: click.Context, /, as_json: bool, **given: Any) -> int:
    """Look at what a policy does to labelled answers. Exit 1: they contradict the bound that it states."""
    from medreward.bench.screening.checking import check as check_policy

    policy = find_policy(context, given)
    files = [(given["data"], False), *([(given["unlabelled"], True)] if given["unlabelled"] else [])]
    reading = read_all(context, given, files, weights_of(policy), lambda model: refuse_another_model(policy, model))
    model, (answers, *others) = asyncio.run(reading)
    checked = check_policy(answers, policy, input_digest(given["data"]), given["base_rates"])
    estimates = estimates_of(answers, others[0], policy) if others else {}
    if given["out"]:
        from medreward.bench.report.screening import page
        from medreward.cli.bench_report import write_page

        write_page(given["out"], page(checked, model, given["data"].name, estimates))
    if as_json:
        found = {name: asdict(estimate) if estimate else None for name, estimate in estimates.items()}
        print_json({**checked.as_json(), "model": model.as_json(), "estimates": found})
    else:
        print_checked(checked, estimates)
        if given["out"]:
            click.echo(given["out"])
    return int(checked.bound is not None and checked.bound.contradicted)


def estimates_of(
    labelled: Sequence["Answer"], unlabelled: Sequence["Answer"], policy: "PolicyFile"
) -> dict[str, "Estimate | None"]:
    """Returns rates in production, by name; None where there is nothing to estimate from."""
    from medreward.bench.screening.estimating import false_allow, sample_of, wrong_among_allowed

    samples = [sample_of(answers, policy.policy) for answers in (labelled, unlabelled)]
    return {"false_allow": false_allow(*samples), "wrong_among_allowed": wrong_among_allowed(*samples)}


def print_checked(checked: "Checked", estimates: Mapping[str, "Estimate | None"]) -> None:
    verdicts = [str(verdict) for verdict in Verdict]
    rows = [
        [side, str(row[Verdict.ALLOW].of), *(_cell(row[verdict]) for verdict in Verdict)]
        for side, row in checked.matrix.items()
    ]
    click.echo("Share of answers, % (95% interval, which knows which answers share an image)")
    print_table(["label", "answers", *verdicts], rows, ["answers", *verdicts])
    if checked.parts:
        columns = ["wrong", "wrong allowed", "right", "right allowed", "right blocked"]
        print_table(
            ["part", "", *columns],
            [
                [
                    part.kind,
                    part.name,
                    str(part.wrong_allowed.of),
                    _cell(part.wrong_allowed),
                    str(part.right_allowed.of),
                    _cell(part.right_allowed),
                    _cell(part.right_blocked),
                ]
                for part in checked.parts
            ],
            columns,
        )
    click.echo("What a verdict is worth where another share of answers is wrong, %")
    columns = ["wrong answers", "wrong among held back (PPV)", "95%", "right among allowed (NPV)", "95% "]
    print_table(
        columns,
        [
            [share(row.base_rate), share(row.ppv), interval(row.ppv95), share(row.npv), interval(row.npv95)]
            for row in checked.base_rates
        ],
        columns,
    )
    for name, found in estimates.items():
        click.echo(f"in production, {ESTIMATES[name]}: {_estimate(found)}")
    words = checked.in_words()
    print_panel(words.title, words.lines, words.tone)


def _cell(one: "Share") -> str:
    return f"{share(one.value)} ({interval((one.low, one.high))})" if one.of else "-"


def _estimate(found: "Estimate | None") -> str:
    if found is None:
        return "no answer to estimate it from"
    alone = f"{share(found.by_labels)}% ({interval(found.by_labels_interval)})"
    return f"{share(found.value)}% ({interval(found.interval)}); by the labels alone {alone}"
