"""`medreward swap`: another model for a running server, without a dropped request."""

import click

from medreward.cli.admin_port import admin_options, change
from medreward.cli.options import option
from medreward.clients import Tls


@click.command("swap")
@click.argument("model", required=False)
@option("--rollback", is_flag=True, help="take a candidate away; without one, go back to the model before")
@option("--require-evidence", metavar="POLICY", help="take the model only if this gate policy promoted it")
@option(
    "--plan",
    type=click.Choice(["beside", "drain"]),
    default="beside",
    show_default=True,
    help="beside: load it while the old one serves; drain: let the old one go first, where memory does not hold two",
)
@option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="below 1: the new model answers this part of the requests beside the old one",
)
@admin_options
def command(
    model: str | None,
    rollback: bool,
    require_evidence: str | None,
    plan: str,
    share: float,
    url: str,
    key: str | None,
    tls: Tls | None,
    as_json: bool,
) -> None:
    """Let MODEL take over on a running server. It is loaded and proven first; when it is refused, the old one serves
    on, and the exit code is 1."""
    if rollback == (model is not None):
        raise click.UsageError("name a MODEL, or give --rollback")
    if rollback:
        change("/admin/model/rollback", None, url, key, tls, as_json)
        return
    asked = {"model": model, "require_evidence": require_evidence, "plan": plan, "share": share}
    change("/admin/model", asked, url, key, tls, as_json)
