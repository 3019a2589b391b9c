"""`medreward bench gate`: the release decision, printed, as an exit code and as files."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from medreward.artifacts.evidence import DEFAULT_POLICY, policies, write_evidence
from medreward.cli.asking import caller_options, url_option
from medreward.cli.options import baseline_option, json_option, models_dir_option, option
from medreward.cli.show import print_json, print_table
from medreward.errors import ConfigurationError

if TYPE_CHECKING:
    from medreward.bench.gate.deciding import Decision

RUN = click.Path(path_type=Path)
POLICIES: Final = f"what must be shown: {', '.join(policies())}, or a TOML file"


def read_http_url(context: click.Context, flag: click.Parameter, url: str | None) -> str | None:
    """Returns the URL without a slash at its end. The gate asks over HTTP alone, for it also sends what is broken."""
    if url and not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} must begin with http:// or https://")
    if url and "," in url:
        raise click.BadParameter(f"{url!r} names several servers: the gate measures one")
    return url.rstrip("/") if url else None


@click.command()
@option("--candidate", type=RUN, required=True, metavar="RUN", help="run of the model to release")
@baseline_option
@option("--blanked", type=RUN, metavar="RUN", help="run of the candidate that was made with --images blank")
@option("--policy", default=DEFAULT_POLICY, metavar="POLICY", show_default=True, help=POLICIES)
@url_option(read_http_url)
@option("--baseline-url", callback=read_http_url, metavar="URL", help="server of the model that it would replace")
@caller_options
@option(
    "--evidence",
    type=RUN,
    metavar="MODEL_DIR",
    help="the candidate's model folder, to write the verdict into; without --out it is found by itself where it can be",
)
@models_dir_option
@option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="write the verdict here alone; without it, into the candidate's run and into the model's folder",
)
@json_option
def gate(as_json: bool, out: Path | None, policy: str, **given: Any) -> int:
    """Say whether this model may replace the one that serves.

    Exit 0: promote. 1: refuse. 2: the gate could not run. 3: undecided, for too little data or for want of labels.
    """
    from medreward.artifacts.repository import bundled_models
    from medreward.bench.gate.checks import EXIT, needed_in_words
    from medreward.bench.gate.deciding import Submission, decide
    from medreward.bench.gate.policy import read_policy
    from medreward.bench.gate.writing import GATE, document, forget, labels, says, write

    folder = out or given["candidate"]
    try:
        forget(folder)
        rules = read_policy(policy)
        submission = Submission.read(rules, **given | {"models_dir": given["models_dir"] or bundled_models()})
        decision = asyncio.run(decide(rules, submission))
        write(folder, decision)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or folder}: {error.strerror or error}") from None
    if as_json:
        print_json(document(decision))
    else:
        candidate = decision.submission.candidate
        rows = [[check.name, check.status, check.what] for check in decision.checks]
        print_table(["check", "outcome", "what was seen"], rows)
        click.echo(f"labels: {labels(candidate)}")
        if needed := needed_in_words(decision.needed):
            click.echo(f"{needed} There are {len(candidate.cases):,}.")
        click.echo(f"{decision.verdict}: {candidate.model['name']} {says(decision)} ({folder / GATE})")
    if out is None or given["evidence"] is not None:
        _leave_evidence(decision)
    else:
        click.echo("nothing was written into the model's folder: --out was given without --evidence", err=True)
    return EXIT[decision.verdict]


def _leave_evidence(decision: "Decision") -> None:
    """Writes the decision into the model's folder, and says so on stderr, for stdout is the decision.

    The decision stands even where the folder cannot be written to.
    """
    from medreward.bench.gate.writing import document

    folder = decision.submission.folder
    if not folder:
        click.echo("no evidence was written: the model's folder is not known here; name it with --evidence", err=True)
        return
    try:
        click.echo(f"evidence: {write_evidence(folder, document(decision))}", err=True)
    except OSError as error:
        click.echo(f"no evidence was written into {folder}: {error.strerror or error}", err=True)
