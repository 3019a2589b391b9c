"""Templates to pages. Everything in them is escaped: questions and answers are strangers' texts."""

from functools import cache
from typing import Any, Final

import jinja2

from medreward import __version__

NONE: Final = "\N{EN DASH}"


def rendered(template: str, **context: Any) -> str:
    return _environment().get_template(template).render(version=__version__, **context)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader("medreward.bench.report"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(share=share, whole=whole, points=points, p=p_value, words=words)
    return environment


def share(value: float | None) -> str:
    """In percent, as of a figure of a table."""
    return NONE if value is None else f"{100 * value:.1f}"


def whole(value: float) -> str:
    return f"{100 * value:.0f}"


def points(value: float) -> str:
    """With its sign, a true minus."""
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}".replace("-", "\N{MINUS SIGN}") if rounded else "0.0"


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def words(name: str) -> str:
    """`gastrointestinal_tract` is a file's name."""
    return name.replace("_", " ")
