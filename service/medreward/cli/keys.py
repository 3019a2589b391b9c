"""`medreward keys`: make, list and revoke API keys. A running server takes the change up within two seconds."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from medreward.api.access.keys import Key, Scope, add_key, new_secret, read_keys, remove_key
from medreward.cli.options import json_option, option
from medreward.cli.show import print_json, print_table
from medreward.types import Lane

COLUMNS: Final = ["id", "name", "tenant", "lanes", "scopes", "quotas", "expires"]

file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
rate = click.FloatRange(min=0, min_open=True)


@click.group("keys")
def command() -> None:
    """Make, list and revoke the API keys in a file."""


@command.command()
@file_argument
@option("--name", required=True, help="name of the key, for people")
@option("--tenant", required=True, help="tenant whose images and cached scores it can use")
@option("--lane", "lanes", multiple=True, type=click.Choice([str(lane) for lane in Lane]), help="lane it may use [all]")
@option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice([str(scope) for scope in Scope]),
    help="routes that it opens [score]",
)
@option("--requests-per-second", type=rate, help="most requests a second, on average")
@option("--triples-per-second", type=rate, help="most responses to score a second, on average")
@option("--burst-seconds", type=rate, help="how many seconds' worth of a quota may come at once [10]")
@option("--in-flight", type=click.IntRange(min=1), help="most requests at a time")
@option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="day (UTC) from which it is refused")
@json_option
def new(file: Path, name: str, tenant: str, expires: datetime | None, as_json: bool, **limits: Any) -> int:
    """Add a key to FILE and print its text, which is kept nowhere."""
    text, id_, salt, hash_ = new_secret()
    given = {limit: value for limit, value in limits.items() if value}
    about = {"id": id_, "salt": salt, "hash": hash_, "name": name, "tenant": tenant, **given}
    if expires:
        about["expires"] = expires.replace(tzinfo=UTC)
    try:
        key = msgspec.convert(about, Key)
    except msgspec.ValidationError as error:
        raise click.UsageError(str(error)) from None
    add_key(file, key)
    if as_json:
        print_json({"id": id_, "key": text})
    else:
        click.echo(text)
        click.echo(f"key {id_} added to {file}; its text above cannot be shown again", err=True)
    return 0


@command.command("list")
@file_argument
@json_option
def list_(file: Path, as_json: bool) -> int:
    """The keys in FILE, without salts and hashes."""
    keys = read_keys(file)
    if as_json:
        shown = [name for name in Key.__struct_fields__ if name not in ("salt", "hash")]
        print_json([{name: msgspec.to_builtins(getattr(key, name)) for name in shown} for key in keys])
        return 0
    rows = []
    for key in keys:
        limits = (
            (key.requests_per_second, "requests/s"),
            (key.triples_per_second, "triples/s"),
            (key.in_flight, "in flight"),
        )
        quotas = ", ".join(f"{limit:g} {unit}" for limit, unit in limits if limit)
        expires = key.expires.isoformat() if key.expires else ""
        rows.append([key.id, key.name, key.tenant, " ".join(key.lanes), " ".join(key.scopes), quotas, expires])
    print_table(COLUMNS, rows)
    return 0


@command.command()
@file_argument
@click.argument("key_id", metavar="ID")
def revoke(file: Path, key_id: str) -> int:
    """Take a key out of FILE."""
    remove_key(file, key_id)
    click.echo(f"key {key_id} revoked", err=True)
    return 0
