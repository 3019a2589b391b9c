"""Charts as inline SVG. Colours are the page's CSS variables, so that one drawing serves light, dark and print."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup

from medreward.bench.statistics.calibration import Bin
from medreward.quiet import without_font_caches

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of its caches of fonts on stderr

#: matplotlib wants colours that it knows: each stands for a variable of the page.
INK, MUTED, LINE, SURFACE, CANDIDATE, BASELINE = (f"#00010{n}" for n in range(6))
VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    SURFACE: "var(--surface)",
    CANDIDATE: "var(--candidate)",
    BASELINE: "var(--baseline)",
}
STYLE: Final = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and has the page's fonts
    "font.size": 12,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a model's name is a dollar
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINE,
    "ytick.labelcolor": INK,
}
WIDTH: Final = 5.6  # inches of 72 units: a phone shows it at nine tenths
COIN: Final = 50.0


@dataclass(frozen=True, slots=True)
class Mark:
    """A figure with its interval, in percent or points."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Series:
    """A mark for each row of the chart, None where there is no figure."""

    name: str
    marks: Sequence[Mark | None]


def accuracies(
    name: str, rows: Sequence[str], series: Sequence[Series], title: str, shortcuts: Sequence[float | None] = ()
) -> Markup:
    """Returns dots with intervals; the first series is the candidate. A dashed line shows what a coin reaches.

    `shortcuts` are what the better shortcut reaches in each row, shown as a short upright line.
    """
    shown = [(value, row) for row, value in enumerate(shortcuts) if value is not None]
    lows = [*(mark.low for one in series for mark in one.marks if mark), *(value for value, _ in shown)]
    with chart(name, title, 0.9 + 0.42 * len(rows) * max(1.0, 0.6 * len(series))) as (axes, result):
        axes.axvline(COIN, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, one in enumerate(series):
            _draw_series(axes, one, place, len(series))
        if shown:
            axes.plot(*zip(*shown, strict=True), "|", color=INK, markersize=17, label="shortcut")
        _label_rows(axes, rows)
        axes.set_xlim(min([COIN, *lows]) - 3, 101.5)
        axes.set_xlabel("accuracy, % (dashed: a coin)")
        if len(series) > 1 or shown:
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    return result.inline()


def shares(name: str, rows: Sequence[str], series: Sequence[Series], title: str, limit: float | None) -> Markup:
    """Returns shares of answers with intervals. A dashed line shows the limit that the first series may not pass."""
    with chart(name, title, 0.9 + 0.42 * len(rows) * max(1.0, 0.6 * len(series))) as (axes, result):
        if limit is not None:
            axes.axvline(limit, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for place, one in enumerate(series):
            _draw_series(axes, one, place, len(series))
        _label_rows(axes, rows)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("share of answers, %")
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False)  # it may reach over the names
    return result.inline()


def differences(name: str, rows: Sequence[str], series: Series, title: str) -> Markup:
    """Returns candidate minus baseline, in points."""
    ends = [abs(end) for mark in series.marks if mark for end in (mark.low, mark.high)]
    with chart(name, title, 0.9 + 0.42 * len(rows)) as (axes, result):
        axes.axvline(0, color=MUTED, linewidth=1)
        _draw_series(axes, series, 0, 1)
        _label_rows(axes, rows)
        widest = max([5.0, *ends]) * 1.1
        axes.set_xlim(-widest, widest)
        axes.set_xlabel("← worse\N{EM SPACE}difference in points\N{EM SPACE}better →")
    return result.inline()


def reliability(name: str, bins: Sequence[Bin], title: str) -> Markup:
    """Returns how often the preferred answer was the labelled one, by how sure the model was.

    At the foot stands how many cases they are.
    """
    with chart(name, title, 4.4) as (axes, result):
        from matplotlib.ticker import PercentFormatter

        foot = min(0.5, *(one.ci95[0] for one in bins)) - 0.08
        axes.plot([0.5, 1], [0.5, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        xs, ys = [one.confidence for one in bins], [one.accuracy for one in bins]
        axes.vlines(xs, *zip(*(one.ci95 for one in bins), strict=True), color=CANDIDATE, linewidth=1.4)
        axes.plot(xs, ys, color=CANDIDATE, linewidth=2, marker="o", markersize=7, markeredgecolor=SURFACE)
        for one in bins:
            axes.text(one.confidence, foot + 0.015, str(one.n), ha="center", fontsize=10, color=MUTED)
        axes.set_xlim(0.49, 1.01)
        axes.set_ylim(foot, 1.03)
        axes.grid(True)
        axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        axes.set_xlabel("how sure the model was")
        axes.set_ylabel("how often it was right")
    return result.inline()


def _draw_series(axes: "Axes", series: Series, place: int, of: int) -> None:
    """Draws one series as dots with intervals; the first one, which is the candidate, is filled."""
    colour, marker = (CANDIDATE, "o") if place == 0 else (BASELINE, "s")
    offset = (place - (of - 1) / 2) * 0.34
    there = [(row, mark) for row, mark in enumerate(series.marks) if mark]
    ys = [row + offset for row, _ in there]
    axes.hlines(ys, [m.low for _, m in there], [m.high for _, m in there], color=colour, linewidth=2.2)
    filled = colour if place == 0 else SURFACE
    xs = [mark.value for _, mark in there]
    axes.plot(
        xs,
        ys,
        marker,
        color=colour,
        markerfacecolor=filled,
        markersize=7,
        markeredgewidth=1.6,
        label=series.name,
    )


def _label_rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")


@contextmanager
def chart(name: str, title: str, height: float) -> Iterator[tuple["Axes", "Svg"]]:
    """Gives axes to draw on, and the chart, which has its SVG when the drawing is done."""
    with without_font_caches():
        import matplotlib as mpl
        from matplotlib.figure import Figure

    style: Any = {**STYLE, "svg.hashsalt": name}
    with mpl.rc_context(style):
        figure = Figure((WIDTH, height), layout="constrained")
        result = Svg(name, title)
        yield figure.subplots(), result
        svg = StringIO()
        figure.savefig(svg, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        result.text = svg.getvalue()


@dataclass
class Svg:
    name: str
    title: str
    text: str = ""

    def inline(self) -> Markup:
        """Returns the SVG for a page. Ids of several charts must not meet there; the size is the page's business."""
        view = re.search(r'viewBox="[^"]*"', self.text)
        assert view
        body = self.text[self.text.index(">", view.end()) + 1 :]
        for colour, variable in VARIABLES.items():
            body = body.replace(colour, variable)
        body = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{self.name}-", body)
        opening = Markup('<svg class="chart" {} role="img" aria-label="{}">')
        # matplotlib escaped the texts in it.
        return opening.format(Markup(view[0]), self.title) + Markup(body)  # noqa: S704
