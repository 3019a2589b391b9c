"""The `medreward` command: one file a verb, loaded when it is called."""

import importlib
import sys

import click

from medreward import __version__
from medreward.cli.extras import install
from medreward.cli.options import nearest, refuse_unknown_variables
from medreward.errors import ConfigurationError, MedRewardError

VERBS = {
    "serve": "serve a model over REST and gRPC",
    "score": "score responses to a question, here or on a server",
    "score-file": "score a JSONL or Parquet file; goes on where it stopped",
    "swap": "let another model take over on a running server",
    "sleep": "free the device of a running server",
    "wake": "take the device again after sleep",
    "keys": "make, list and revoke API keys",
    "screen": "make, check and use a policy that decides which answers are shown",
    "bench": "measure a model or a judge on Med-RewardBench or a set in its format",
    "models": "list, inspect, verify, adopt, export and measure models on disk",
    "drift": "whether the answers of an audit log have changed",
    "shadow": "how often a shadow agreed with what was served",
    "train": "train a reward model",
    "merge": "merge experts of one base into one model",
    "plan": "how many servers a day's work needs, and what they cost",
    "audit": "verify an audit log, show its entries, erase what is about a patient",
    "doctor": "what this machine can run, and what is missing",
}


TRAINING = ("torch", "safetensors", "onnx", "onnxscript")


class Verbs(click.Group):
    """Imports a verb's module only when it is asked for, so that `--help` needs none of the server's packages."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            ctx.fail(f"no such command {cmd_name!r}{nearest(cmd_name, VERBS)}")
        module = importlib.import_module(f"medreward.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="medreward")
def app() -> None:
    """Six scores for (image, question, response)."""


def main() -> None:
    try:
        refuse_unknown_variables(app)
        sys.exit(app.main(standalone_mode=False, prog_name="medreward") or 0)
    except click.Abort:
        _fail("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else error.message, err=True)
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except ConfigurationError as error:
        _fail(str(error), 2)
    except MedRewardError as error:
        _fail(f"{error.code}: {error.detail}{f' ({error.field})' if error.field else ''}", 2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("medreward"):
            raise
        extra = "train" if error.name in TRAINING else "cpu"
        _fail(f"{error.name} is not installed, and this command needs it; run {install(extra)}", 2)


def _fail(message: str, code: int) -> None:
    click.echo(f"medreward: {' '.join(message.split())}", err=True)
    sys.exit(code)
