"""`medreward wake`: the end of `medreward sleep`."""

import click

from medreward.cli.admin_port import admin_options, change
from medreward.clients import Tls


@click.command("wake")
@admin_options
def command(url: str, key: str | None, tls: Tls | None, as_json: bool) -> None:
    """Take the device again. Returns when the golden scores are as they were and requests are taken."""
    change("/admin/wake", None, url, key, tls, as_json)
