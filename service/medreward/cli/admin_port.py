"""What `swap`, `sleep` and `wake` have in common: one request to a server's admin port, and its answer for people."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click
import httpx

from medreward.cli.asking import caller_options
from medreward.cli.options import json_option
from medreward.cli.show import print_json
from medreward.clients import Tls
from medreward.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])
TIMEOUT: Final = 1800.0  # a model may take long to load; the server ends it after --load-seconds


def admin_options(command: F) -> F:
    """Adds the flags of a command that speaks to an admin port."""
    for decorate in (
        json_option,
        caller_options,
        click.option(
            "--url",
            required=True,
            metavar="ADMIN",
            envvar="MEDREWARD_ADMIN_URL",
            show_envvar=True,
            help="admin port of the server, as http://127.0.0.1:8002",
        ),
    ):
        command = decorate(command)
    return command


def change(
    path: str, body: Mapping[str, Any] | None, url: str, key: str | None, tls: Tls | None, as_json: bool
) -> None:
    """Sends the change and prints the state after it. Exits with 1 when the server refuses it, and fails with a
    ConfigurationError when no server of ours answers."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT, verify=(tls or Tls()).context()) as client:
            reply = client.post(path, json=body)
            answer = reply.json()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConfigurationError(f"no answer from {url}: {error or type(error).__name__}") from None
    except ValueError:
        raise ConfigurationError(f"what answers at {url} is no admin port of medreward") from None
    if as_json:
        print_json(answer)
    elif reply.is_success:
        click.echo(_about(answer))
    else:
        click.echo(f"refused: {answer.get('detail', reply.status_code)}", err=True)
    if not reply.is_success:
        raise click.exceptions.Exit(1)


def _about(state: Mapping[str, Any]) -> str:
    """Returns the state of the models in a line or more."""

    def named(model: Mapping[str, str] | None) -> str:
        return f"{model['name']} {model['version']} ({model['fingerprint']})" if model else "none"

    lines = [f"{state['state']}: {named(state['model'])}"]
    if state["candidate"]:
        lines.append(f"candidate with {100 * state['share']:g}% of the requests: {named(state['candidate'])}")
    if state["previous"]:
        lines.append(f"before, still loaded: {named(state['previous'])}")
    return "\n".join(lines)
