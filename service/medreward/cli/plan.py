"""`medreward plan`: how many servers a demand needs."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medreward.cli.options import json_option, option
from medreward.cli.show import print_json, share

if TYPE_CHECKING:
    from medreward.scale.planning import Plan
    from medreward.scale.traffic import Ask

COUNT = click.IntRange(1)
POSITIVE = click.FloatRange(0, min_open=True)


def read_number(context: click.Context, flag: click.Parameter, text: str | None) -> float | None:
    """Returns a positive number that may be written as 7e9 or 7B; raises BadParameter where it is none."""
    if text is None:
        return None
    factor = {"B": 1e9, "M": 1e6, "K": 1e3}.get(text.strip()[-1:].upper(), 1.0)
    try:
        number = float(text.strip()[:-1] if factor > 1 else text) * factor
    except ValueError:
        number = 0.0
    if not 0 < number < 1e18:
        raise click.BadParameter(f"{text!r} is no number like 7e9 or 7B")
    return number


@click.command("plan")
@option(
    "--triples-per-day",
    callback=read_number,
    metavar="N",
    help="triples that trainers ask about on one day, as 2e6 or 2M",
)
@option("--group", type=COUNT, default=8, show_default=True, help="responses to one question about one image")
@option(
    "--burst", type=COUNT, default=256, show_default=True, help="groups that a trainer asks about at once, in a step"
)
@option(
    "--distinct-images",
    type=COUNT,
    default=20_000,
    show_default=True,
    help="images of the training set, which come again",
)
@option(
    "--peak", type=click.FloatRange(1), default=2.0, show_default=True, help="busiest hour of training over the mean"
)
@option(
    "--screens-per-day",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="single answers that are screened beside it on one day, most of them by day",
)
@option(
    "--traffic",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="a recorded peak in place of all that: JSON lines with at (seconds), image, responses, lane",
)
@option("--image-tokens", type=click.IntRange(0), default=1024, show_default=True, help="tokens of an image")
@option("--question-tokens", type=click.IntRange(0), default=64, show_default=True, help="tokens of a question")
@option("--answer-tokens", type=COUNT, default=256, show_default=True, help="tokens of a response")
@click.option(
    "--device",
    default="H200",
    show_default=True,
    envvar="MEDREWARD_PLAN_DEVICE",  # a server's device is something else
    show_envvar=True,
    help="device of a server, one of those in the file of costs",
)
@option(
    "--parameters",
    callback=read_number,
    metavar="N",
    help="size of the model, for a device that nobody has measured, as 7B",
)
@option(
    "--costs",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="costs that you measured, in the form of medreward/scale/costs.toml; see docs/scale.md",
)
@option(
    "--p99",
    type=POSITIVE,
    default=30.0,
    show_default=True,
    help="seconds within which 99 in 100 groups of trainers must have their scores",
)
@option(
    "--screen-p99",
    type=POSITIVE,
    default=1.0,
    show_default=True,
    help="seconds within which 99 in 100 screened answers must have theirs",
)
@option("--spare", type=click.IntRange(0), default=1, show_default=True, help="servers that may fail in the peak")
@option("--price-per-hour", type=click.FloatRange(0), help="price of one device for an hour, in your currency")
@json_option
def command(
    triples_per_day: float | None,
    traffic: Path | None,
    device: str,
    parameters: float | None,
    costs: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Say how many servers a day's work needs, how much memory, and what they cost.

    A peak is simulated with the server's own scheduler and the client's own routing, on devices as fast as the file of
    costs says. The answer is the fewest servers that keep the p99, and the spare ones. docs/scale.md says how near this
    comes to real servers.
    """
    from medreward.scale.costs import read_costs
    from medreward.scale.planning import Demand, plan
    from medreward.scale.traffic import Size, recorded

    asks: Sequence[Ask]
    if (triples_per_day is None) == (traffic is None):
        raise click.UsageError("name exactly one of --triples-per-day and --traffic")
    known = read_costs(device, costs, parameters)
    size = known.size(Size(given["image_tokens"], given["question_tokens"], given["answer_tokens"]))
    if triples_per_day:
        names = ("group", "burst", "peak", "screens_per_day")
        of_day = {name: given[name] for name in names}
        asks = Demand(triples_per_day, images=given["distinct_images"], size=size, **of_day).asks()
    else:
        assert traffic
        asks = recorded(traffic, size)
    made = plan(asks, known, given["p99"], given["screen_p99"], given["spare"], given["price_per_hour"])
    if as_json:
        print_json(asdict(made))
    else:
        for name, value in _lines(made):
            click.echo(f"{name:<28} {value}")
        if made.kind == "sheet":
            click.echo(
                f"Nobody has measured {device}: the rate is reckoned from {made.source}. Measure, and give --costs."
            )
    return 0


def _lines(plan: "Plan") -> Iterator[tuple[str, str]]:
    """Yields the plan as people read it."""
    spare = f" ({plan.spare} of them spare)" if plan.spare else ""
    each = f", {plan.devices_per_server} {plan.device} each" if plan.devices_per_server > 1 else f", {plan.device}"
    yield "servers", f"{plan.servers}{spare}{each}"
    for name, seconds in (("p99 of trainers' groups", plan.p99_s), ("p99 of screened answers", plan.screen_p99_s)):
        if seconds is not None:
            yield name, f"{seconds:.2f} s"
    yield "triples/s in the peak", f"{plan.triples_per_second:,.0f}"
    yield "busy, without the spare ones", f"{share(plan.busy)}%"
    yield "images found in a cache", f"{share(plan.cache_hit_rate)}%"
    yield "memory of a device", f"{plan.weights_gib:.1f} GiB of weights, {plan.free_gib:.1f} GiB for batches and caches"
    yield "hours of devices a day", f"{plan.device_hours_per_day:,.0f}"
    if plan.cost_per_day is not None:
        yield "cost of a day", f"{plan.cost_per_day:,.0f}"
    yield "rate of the device", f"{'measured' if plan.kind == 'measured' else 'not measured'}: {plan.source}"
