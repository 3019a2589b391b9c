"""Flags that are environment variables too, and the check that no variable is mistyped."""

import os
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import click

from medreward.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])
PREFIX: Final = "MEDREWARD_"


def option(flag: str, **how: Any) -> Callable[[F], F]:
    """`--some-flag`, which MEDREWARD_SOME_FLAG sets too."""
    return click.option(flag, envvar=_variable(flag.removeprefix("--")), show_envvar=True, **how)


def refuse_unknown_variables(app: click.Group) -> None:
    """A mistyped setting must not be ignored."""
    known = set(_variables(app, click.Context(app)))
    for name in os.environ:
        if name.startswith(PREFIX) and name not in known:
            raise ConfigurationError(f"unknown setting {name}")


def _variables(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            if subcommand:
                yield from _variables(subcommand, context)
    yield from (_variable(parameter.name or "") for parameter in command.params)


def _variable(flag: str) -> str:
    return PREFIX + flag.replace("-", "_").upper()
