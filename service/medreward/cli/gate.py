"""`medreward bench gate`: the release decision, printed, as an exit code and as files."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medreward.artifacts.evidence import DEFAULT_POLICY, write_evidence
from medreward.cli.asking import key_option, read_url, url_option
from medreward.cli.options import baseline_option, json_option, models_dir_option, option
from medreward.cli.show import print_json, print_table
from medreward.errors import ConfigurationError

if TYPE_CHECKING:
    from medreward.bench.gate.deciding import Decision

RUN = click.Path(path_type=Path)


@click.command()
@option("--candidate", type=RUN, required=True, metavar="RUN", help="the run of the model to release")
@baseline_option
@option("--blanked", type=RUN, metavar="RUN", help="the candidate's run with --images blank")
@option("--policy", default=DEFAULT_POLICY, metavar="FILE", show_default=True, help="what must be shown: TOML")
@url_option(read_url)
@option("--baseline-url", callback=read_url, metavar="URL", help="server of the model that would be replaced")
@key_option
@option(
    "--evidence", type=RUN, metavar="MODEL_DIR", help="folder of the candidate's model, if it is not found by itself"
)
@models_dir_option
@option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="folder of gate.json; the candidate's run without it"
)
@json_option
def gate(as_json: bool, out: Path | None, policy: str, **given: Any) -> int:
    """May this model replace the one that serves? Exit 0 promote, 1 refuse, 2 could not run, 3 too little data."""
    from medreward.artifacts.repository import bundled_models
    from medreward.bench.gate.deciding import Brought, decide
    from medreward.bench.gate.policy import read_policy
    from medreward.bench.gate.verdict import EXIT
    from medreward.bench.gate.writing import document, forget, write

    folder = out or given["candidate"]
    try:
        forget(folder)
        rules = read_policy(policy)
        brought = Brought.read(**given | {"models_dir": given["models_dir"] or bundled_models()})
        decision = asyncio.run(decide(rules, brought))
        write(folder, decision)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or folder}: {error.strerror or error}") from None
    if as_json:
        print_json(document(decision))
    else:
        _print(decision, folder)
    _leave_evidence(decision)
    return EXIT[decision.verdict]


def _leave_evidence(decision: "Decision") -> None:
    """On stderr, for stdout is the decision, which stands even where the model's folder cannot be written to."""
    from medreward.bench.gate.writing import document

    folder = decision.brought.folder
    if not folder:
        click.echo("no folder of this model here: gate.json is its evidence", err=True)
        return
    try:
        click.echo(f"evidence: {write_evidence(folder, document(decision))}", err=True)
    except OSError as error:
        click.echo(f"no evidence was left in {folder}: {error.strerror or error}", err=True)


def _print(decision: "Decision", folder: Path) -> None:
    from medreward.bench.gate.writing import GATE, SAYS, labels

    candidate = decision.brought.candidate
    print_table(["check", "status", ""], [[check.name, check.status, check.what] for check in decision.checks])
    click.echo(f"labels: {labels(candidate)}")
    if decision.needed:
        click.echo(f"about {decision.needed} cases would be needed, {len(candidate.cases)} are there")
    click.echo(f"{decision.verdict}: {candidate.about['model']['name']} {SAYS[decision.verdict]} ({folder / GATE})")
