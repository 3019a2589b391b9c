"""Templates to pages. Everything in them is escaped: questions and answers are strangers' texts."""

from functools import cache
from typing import Any, Final

import jinja2

from medreward import __version__
from medreward.bench.figures import Figure

NONE: Final = "\N{EN DASH}"
#: Percent of a heatmap's colour, over which text can still be read.
STRONGEST: Final = 60


def render(template: str, **context: Any) -> str:
    return environment().get_template(template).render(version=__version__, **context)


@cache
def environment() -> jinja2.Environment:
    templates = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader("medreward.bench.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(share=share, whole=whole, points=points, p=p_value, words=words, tone=tone, heat=heat)
    return templates


def share(value: float | None) -> str:
    """Returns a share in percent, as in a table; a dash where there is none."""
    return NONE if value is None else f"{100 * value:.1f}"


def whole(value: float) -> str:
    return f"{100 * value:.0f}"


def points(value: float) -> str:
    """Returns a difference in points, with its sign."""
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def words(name: str) -> str:
    """Returns the name of an organ for people: `gastrointestinal_tract` is a file's name."""
    return name.replace("_", " ")


def tone(figure: Figure) -> str:
    """Returns the colour of a heatmap's cell: by the side of a coin that the accuracy lies on."""
    return "below" if figure.accuracy is not None and figure.accuracy < 0.5 else "above"


def heat(figure: Figure) -> int:
    """Returns how strong the cell's colour is, in percent, so that text on it stays readable.

    It is as strong as the whole interval is away from a coin. So a figure of few cases fades, and one that may well be
    a coin's has no colour.
    """
    if figure.low is None or figure.high is None:
        return 0
    nearest = max(figure.low - 0.5, 0.5 - figure.high, 0.0)
    return round(min(STRONGEST, 150 * nearest))
