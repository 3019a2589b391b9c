"""Flags and variables of all commands together."""

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from commands import CLEAN, Run, assert_refused
from medreward.cli import app
from medreward.cli.options import setting_names, variable
from medreward.settings import Settings

HEAVY = ["fastapi", "httpx", "numpy", "pydantic", "pyarrow", "rich", "torch", "uvicorn"]


#: Settings of a server that other commands have too, with the same meaning.
SHARED = ("model", "models_dir", "heads", "image_size", "dtype", "backend", "worker_python", "require_evidence")


def commands(group: click.Group = app) -> Iterator[click.Command]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command)
        elif command:
            yield command


def flags() -> list[click.Option]:
    return [
        flag
        for command in commands()
        if command.name != "serve"
        for flag in command.params
        if isinstance(flag, click.Option)
    ]


def test_every_flag_has_the_variable_of_its_name() -> None:
    assert len(flags()) > 20
    others = {flag.envvar for flag in flags() if flag.envvar != variable(flag.opts[0])}
    # `--url` of a command that asks the admin port, which is another port; the device of a plan is no device here
    assert others == {"MEDREWARD_ADMIN_URL", "MEDREWARD_PLAN_DEVICE"}


def test_a_variable_means_the_same_to_every_command() -> None:
    meanings = defaultdict(set)
    for flag in flags():
        meanings[flag.envvar].add((flag.help, flag.multiple, repr(flag.type)))
    several = {name for name, found in meanings.items() if len(found) > 1}
    # of one run or one making: what a benchmark reads is not what training reads, a key's name is not a model's
    # the policy of a release gate is not one of screening, nor is a server's named like a file
    of_one = {"DATA", "OUT", "NAME", "POLICY", "SEED", "DIMENSION"}
    assert several == {f"MEDREWARD_{name}" for name in of_one}
    shared_with_serve = {variable(name) for name in Settings.model_fields} & {str(name) for name in meanings}
    assert shared_with_serve == {variable(name) for name in SHARED}


def test_the_settings_are_known_by_name_without_importing_them() -> None:
    assert setting_names() == list(Settings.model_fields)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("MEDREWARD_PROT", "MEDREWARD_PORT"), ("MEDREWARD_ULR", "MEDREWARD_URL"), ("MEDREWARD_RELEASE", "")],
)
def test_an_unknown_variable_stops_every_command(run_here: Run, name: str, nearest: str) -> None:
    assert_refused(run_here("models", "list", **{name: "1"}), f"unknown setting {name}", nearest)


def test_a_mistyped_command_is_one_line_and_exit_2(run_here: Run) -> None:
    assert_refused(run_here("scor"), "'scor'", "did you mean score?")


def test_no_command_shows_the_help_and_exits_2(run: Run) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert "score-file" in done.stderr


def test_help_imports_nothing_slow() -> None:
    script = f"""
import sys
from click.testing import CliRunner
from medreward.cli import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
print(*set({HEAVY}) & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=CLEAN, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("command", ["serve", "score", "score-file", "models", "models verify", "doctor"])
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(app, [*command.split(), "--help"])
    assert shown.exit_code == 0
    assert "Usage:" in shown.output


@pytest.mark.parametrize(
    ("command", "url", "says"),
    [
        (["score-file", "in.jsonl", "out.jsonl"], "http://a,ftp://b", "'ftp://b' must begin with"),
        (["score-file", "in.jsonl", "out.jsonl"], "http://a,", "'' must begin with"),
        (["bench", "gate", "--candidate", "run"], "http://a,http://b", "names several servers"),
    ],
)
def test_a_wrong_url_among_several_is_named(command: list[str], url: str, says: str) -> None:
    done = CliRunner().invoke(app, command, env={"MEDREWARD_URL": url})
    assert done.exit_code == 2
    assert says in done.output
