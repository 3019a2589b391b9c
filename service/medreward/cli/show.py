"""Tables for people, JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import click

TONES: Final = {"good": "green", "bad": "red", "warn": "yellow", "plain": ""}
PIPED_WIDTH: Final = 240  # nobody's window: nothing is cut or wrapped


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))


def share(value: float | None) -> str:
    """Returns a share in percent; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.1f}"


def interval(bounds: Sequence[float | None] | None) -> str:
    return "-" if bounds is None else " to ".join(map(share, bounds))


def coefficient(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def coefficients(bounds: Sequence[float | None] | None) -> str:
    return "-" if bounds is None else " to ".join(map(coefficient, bounds))


def probability(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> None:
    """Prints a table. Columns named in `numbers` are flush right; on a narrow terminal cells fold, nothing is cut."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False).print(table)


def print_panel(title: str, lines: Iterable[str], tone: Literal["good", "bad", "warn", "plain"]) -> None:
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
    console.print(Panel(Text("\n".join(lines)), title=Text(title), title_align="left", expand=False, style=TONES[tone]))


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function that is told (done, all). Where stderr is no terminal, nothing is shown."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(TextColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.1f} {unit}/s" if task.speed else "")

    columns = (BarColumn(), MofNCompleteColumn(), Rate(""), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
