"""The flags of commands that read labelled answers, and what they read."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medreward.cli.asking import (
    chosen_url,
    concurrency_option,
    retry_seconds_option,
    text_options,
    where_options,
)
from medreward.cli.client import open_client
from medreward.cli.options import F, option
from medreward.cli.show import progress_bar
from medreward.errors import ConfigurationError
from medreward.types import ModelRef

if TYPE_CHECKING:
    from medreward.bench.screening.answers import Answer

FILE: Final = click.Path(path_type=Path)
LOCAL: Final = ("model", "models_dir", "heads", "image_size", "dtype")


def data_options(function: F) -> F:
    """Adds the flags that say which answers are read, and how they are scored."""
    kinds = option(
        "--kinds",
        default="accuracy",
        show_default=True,
        metavar="KIND,…",
        help="of rows that are pairs with a kind, those that are read; all: every one",
    )
    data = option("--data", type=FILE, required=True, metavar="LABELLED", help="labelled answers: JSONL or Parquet")
    for decorate in (retry_seconds_option, concurrency_option, text_options, where_options, kinds):
        function = decorate(function)
    return data(function)


async def read_all(
    context: click.Context,
    given: Mapping[str, Any],
    files: Sequence[tuple[Path, bool]],
    weights: Mapping[str, float] | None,
    accept: Callable[[ModelRef], None] = lambda model: None,
) -> "tuple[ModelRef, list[list[Answer]]]":
    """Returns the model, and the answers of each file with its scores; a file is named with whether labels may lack.

    `accept` is asked before anything is scored, and raises where the model will not do.
    """
    from medreward.cli.labelled import Reader

    url = chosen_url(context, given["url"], given["model"])
    local = {name: given[name] for name in LOCAL}
    how = {name: given[name] for name in ("concurrency", "retry_seconds")}
    options = {"weights": weights, "too_long": given["too_long"], "thinking": given["thinking"]}
    kinds = [kind.strip() for kind in given["kinds"].split(",")]
    try:
        async with open_client(url, given["key"], local, **how) as client:
            model = await client.pin_model()
            accept(model)
            reader = Reader(client, options, kinds)
            read = []
            for file, unlabelled in files:
                with progress_bar("answers") as progress:
                    read.append([one for _, one in await reader.read(file, progress, unlabelled=unlabelled)])
            return model, read
    except OSError as error:
        raise ConfigurationError(f"{error.filename or given['data']}: {error.strerror or error}") from None
