"""Charts over the course of a log: what lies between quantiles, and shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from medreward.bench.report.charts import BASELINE, CANDIDATE, INK, MUTED, chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOOKS: Final = ((CANDIDATE, "-"), (MUTED, (0, (5, 2))), (BASELINE, "-"), (INK, (0, (1, 1.5))))
HIGHEST: Final = 3.0  # of a statistic; 1 is an alarm


@dataclass(frozen=True, slots=True)
class Course:
    """What all charts of a log share: where its parts lie, up to where was learnt, and where an alarm was raised."""

    xs: Sequence[float]
    learnt: int
    unit: str = "images, in the order of the log"


def bands(name: str, course: Course, quantiles: Sequence[Sequence[float]], alarm: int | None, title: str) -> Markup:
    """Returns the bands of 10 to 90% and of 25 to 75% of scores, and their median."""
    low, quarter, median, three_quarters, high = zip(*quantiles, strict=True)
    with chart(name, title, 2.5) as (axes, result):
        axes.fill_between(course.xs, low, high, color=CANDIDATE, alpha=0.15, linewidth=0)
        axes.fill_between(course.xs, quarter, three_quarters, color=CANDIDATE, alpha=0.3, linewidth=0)
        axes.plot(course.xs, median, color=CANDIDATE, linewidth=2)
        axes.set_ylim(-0.02, 1.02)
        axes.set_ylabel("score")
        _mark(axes, course, alarm)
    return result.inline()


def shares(name: str, course: Course, series: Mapping[str, Sequence[float]], alarm: int | None, title: str) -> Markup:
    """Returns a line for each of up to four shares."""
    with chart(name, title, 2.9) as (axes, result):
        from matplotlib.ticker import PercentFormatter

        for (label, ys), (colour, style) in zip(series.items(), LOOKS, strict=False):
            axes.plot(course.xs, ys, color=colour, linestyle=style, linewidth=2, label=label)
        axes.set_ylim(bottom=-0.01)
        axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
        _mark(axes, course, alarm)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=4, frameon=False)
    return result.inline()


def evidence(name: str, course: Course, series: Mapping[str, Sequence[float]], title: str) -> Markup:
    """Returns how strong the evidence of a change was: 1 is an alarm."""
    with chart(name, title, 2.9) as (axes, result):
        for (label, ys), (colour, style) in zip(series.items(), LOOKS, strict=False):
            axes.plot(course.xs, [min(y, HIGHEST) for y in ys], color=colour, linestyle=style, linewidth=2, label=label)
        axes.axhline(1, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(-0.05, HIGHEST + 0.1)
        axes.set_ylabel("statistic (1: alarm)")
        _mark(axes, course, None)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return result.inline()


def _mark(axes: "Axes", course: Course, alarm: int | None) -> None:
    """Draws up to where was learnt, and the alarm."""
    axes.set_xlim(0, max(course.xs))
    if course.learnt:
        axes.axvline(course.learnt, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    if alarm is not None:
        axes.axvline(alarm, color=BASELINE, linewidth=2)
    axes.grid(True, axis="y")
    axes.set_xlabel(course.unit)
