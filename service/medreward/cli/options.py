"""Flags that are environment variables too, and the check that no variable is mistyped."""

import ast
import difflib
import importlib.util
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from medreward.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])
PREFIX: Final = "MEDREWARD_"


def option(flag: str, *names: str, **how: Any) -> Callable[[F], F]:
    """Returns a decorator that adds `--some-flag`, which MEDREWARD_SOME_FLAG sets too."""
    return click.option(flag, *names, envvar=variable(flag), show_envvar=True, **how)


def refuse_unknown_variables(app: click.Group) -> None:
    """Raises ConfigurationError for a variable of ours that sets nothing: a mistyped setting must not be ignored."""
    present = [name for name in os.environ if name.startswith(PREFIX)]
    if not present:
        return
    known = {*_variables(app, click.Context(app)), *map(variable, setting_names())}
    for name in present:
        if name not in known:
            raise ConfigurationError(f"unknown setting {name}{nearest(name, known)}")


def setting_names() -> list[str]:
    """Returns the fields of Settings. They are read from its source, for a client has no pydantic."""
    spec = importlib.util.find_spec("medreward.settings")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    classes = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    fields = (node.target for node in next(classes).body if isinstance(node, ast.AnnAssign))
    return [target.id for target in fields if isinstance(target, ast.Name)]


def nearest(name: str, known: Collection[str]) -> str:
    """Returns a question that names the likeliest of the known names; empty where none is like it."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def variable(flag: str) -> str:
    return PREFIX + flag.removeprefix("--").replace("-", "_").upper()


def _variables(command: click.Command, context: click.Context) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if name != "serve":  # its flags are the settings
                subcommand = command.get_command(context, name)
                assert subcommand is not None
                yield from _variables(subcommand, context)
    yield from (str(parameter.envvar) for parameter in command.params if parameter.envvar)


model_option = option(
    "--model", metavar="REF", help="model on this machine: a bundled name, a directory, or org/name@revision"
)
models_dir_option = option(
    "--models-dir", type=click.Path(path_type=Path), metavar="DIR", help="folder of the bundled models"
)
heads_option = option(
    "--heads",
    type=click.Choice(["auto", "verbaliser"]),
    help="without model.toml: auto, the head that is there, or verbaliser, for an instruction-tuned model",
)
image_size_option = option(
    "--image-size",
    type=click.IntRange(1),
    metavar="PIXELS",
    help="without model.toml: side of the square that every image is brought to",
)
dtype_option = option(
    "--dtype",
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="arithmetic of a VLM in this process; auto: bf16 on a GPU, fp32 on a CPU",
)

backend_option = option(
    "--backend",
    type=click.Choice(["auto", "vllm"]),
    help="auto: the model's own; vllm: a VLM runs in vLLM, which --worker-python has",
)
worker_python_option = option(
    "--worker-python",
    type=click.Path(path_type=Path),
    metavar="PYTHON",
    help="interpreter that runs the model in a process of its own; by default this one",
)


def local_options(command: F) -> F:
    """Adds the flags of a model in this process, or in one beside it."""
    for decorate in (
        worker_python_option,
        backend_option,
        dtype_option,
        image_size_option,
        heads_option,
        models_dir_option,
        model_option,
    ):
        command = decorate(command)
    return command


json_option = option("--json", "as_json", is_flag=True, help="print JSON")
departments_option = option(
    "--departments",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="department of each question_id or organ: a JSON object, or CSV of two columns",
)
baseline_option = option(
    "--baseline", type=click.Path(path_type=Path), metavar="RUN", help="a run on the same cases to stand against"
)
