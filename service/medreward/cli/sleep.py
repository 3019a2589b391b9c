"""`medreward sleep`: frees the device of a running server for something else, such as a trainer."""

import click

from medreward.cli.admin_port import admin_options, change
from medreward.cli.options import option
from medreward.clients import Tls


@click.command("sleep")
@option(
    "--level",
    type=click.IntRange(1, 2),
    default=1,
    show_default=True,
    help="1: the weights stay in this machine's memory; 2: nothing of the model stays",
)
@admin_options
def command(level: int, url: str, key: str | None, tls: Tls | None, as_json: bool) -> None:
    """Free the device of a running server. Requests under way are answered; later ones are refused as asleep."""
    change("/admin/sleep", {"level": level}, url, key, tls, as_json)
