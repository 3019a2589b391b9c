"""The `medreward` command: one file a verb, loaded when it is called."""

import importlib
import sys

import click

from medreward import __version__
from medreward.cli.options import refuse_unknown_variables
from medreward.errors import ConfigurationError

VERBS = {
    "serve": "serve a model over REST and gRPC",
}


class Verbs(click.Group):
    """Imports a verb's module only when it is asked for, so that `--help` needs none of the server's packages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"medreward.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs)
@click.version_option(__version__, prog_name="medreward")
def app() -> None:
    """Six scores for (image, question, response)."""


def main() -> None:
    try:
        refuse_unknown_variables(app)
        sys.exit(app.main(standalone_mode=False, prog_name="medreward") or 0)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except ConfigurationError as error:
        _fail(str(error), 2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("medreward"):
            raise
        _fail(f"{error.name} is not installed; this command needs medreward[cpu] or medreward[gpu]", 2)


def _fail(message: str, code: int) -> None:
    print(f"medreward: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
