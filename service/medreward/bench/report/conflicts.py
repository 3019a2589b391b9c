"""How far merged experts contradict each other, as a page: a table and a chart of each layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from medreward.bench.gate.checks import Check, Status
from medreward.bench.report.charts import BASELINE, CANDIDATE, INK, SURFACE, chart
from medreward.bench.report.headline import Labels
from medreward.bench.report.page import render

LABELS: Final = Labels("No image and no text is in this report.", "It was made of weights alone.", "plain")
TONES: Final = {Status.PASS: "good", Status.FAIL: "bad"}
INCHES_A_LAYER: Final = 0.3


@dataclass(frozen=True, slots=True)
class Outcome:
    """A check of one expert, with its colour."""

    name: str
    status: str
    tone: str
    what: str


def conflicts_page(name: str, report: Mapping[str, Any], checks: Sequence[Check] = ()) -> str:
    """Returns the conflict report of a merge as HTML; `checks` are those of the merged model against each expert."""
    pairs = list(report["whole"]["cosine"])
    outcomes = [Outcome(c.name, c.status, TONES.get(c.status, "warn"), c.what) for c in checks]
    return render(
        "conflicts.html",
        labels=LABELS,
        name=name,
        report=report,
        pairs=pairs,
        checks=outcomes,
        chart=_chart(report["layers"]) if report["layers"] else None,
    )


def _chart(layers: Sequence[Mapping[str, Any]]) -> Markup:
    """Returns for each layer the share of opposed signs, the share pruned, and the lowest cosine of any pair."""
    lowest = [min((c for c in layer["cosine"].values() if c is not None), default=None) for layer in layers]
    series = {
        "signs that disagree": ([layer["sign_disagreement"] for layer in layers], CANDIDATE, "o", CANDIDATE),
        "pruned": ([layer["pruned"] for layer in layers], BASELINE, "s", SURFACE),
        "lowest cosine": (lowest, INK, "|", INK),
    }
    with chart("conflicts", "Conflicts of each layer", 1.1 + INCHES_A_LAYER * len(layers)) as (axes, result):
        axes.axvline(0, color=INK, linewidth=0.8)
        for label, (values, colour, marker, fill) in series.items():
            there = [(value, row) for row, value in enumerate(values) if value is not None]
            if there:
                look: Any = {"color": colour, "markerfacecolor": fill, "markersize": 7, "markeredgewidth": 1.6}
                axes.plot(*zip(*there, strict=True), marker, label=label, **look)
        axes.set_yticks(range(len(layers)), [_short(layer["layer"]) for layer in layers])
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(True)
        axes.set_xlim(min([0.0, *(c for c in lowest if c is not None)]) - 0.05, 1.05)
        axes.set_xlabel("share, or cosine (-1 to 1)")
        axes.figure.legend(loc="outside upper left", ncols=3, frameon=False)  # wider than what is left beside names
    return result.inline()


def _short(layer: str) -> str:
    """Returns the end of a layer's name, which tells it from its neighbours and leaves room for the chart."""
    return ".".join(layer.removeprefix("model.").split(".")[-3:])
