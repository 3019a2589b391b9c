"""The policy that a command decides by: a file, or one of a server's."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import httpx

from medreward.cli.asking import chosen_url
from medreward.cli.options import option
from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, ModelRef

if TYPE_CHECKING:
    from medreward.screening.policy import PolicyFile

POLICIES: Final = "/v1/policies"
TIMEOUT_S: Final = 30.0

policy_option = option(
    "--policy",
    required=True,
    metavar="POLICY",
    help="the policy: a TOML file, or with --url the name of one that the server has",
)


def find_policy(context: click.Context, given: Mapping[str, Any]) -> "PolicyFile":
    """Returns the policy that the flags name; raises ConfigurationError where there is none, or it is wrong."""
    from medreward.screening.policy import read_policy

    name, url = given["policy"], chosen_url(context, given["url"], given["model"])
    if Path(name).suffix == ".toml" or Path(name).is_file():
        return read_policy(Path(name))
    if not url:
        raise ConfigurationError(f"there is no policy file {name}; a server's policy is named together with --url")
    if not url.startswith("http"):
        raise ConfigurationError("a policy's name is looked up over HTTP: give --url as http://… or --policy as a file")
    return served_policy(url, given["key"], name)


def served_policy(url: str, key: str | None, name: str) -> "PolicyFile":
    """Returns the current version of a server's policy."""
    from medreward.screening.policy import Policy, PolicyFile

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        reply = httpx.get(f"{url}{POLICIES}", headers=headers, timeout=TIMEOUT_S)
        body = reply.json()
        listed = body["policies"] if reply.is_success else None
    except httpx.HTTPError as error:
        raise ConfigurationError(f"{url} cannot be asked for its policies: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{url} answers {reply.status_code}, and has no {POLICIES}") from None
    if listed is None:
        raise ConfigurationError(f"{url} does not show its policies: {body.get('detail') or reply.status_code}")
    for one in listed:
        if one["name"] == name:
            fields = {field: one[field] for field in Policy.model_fields if one.get(field) is not None}
            return PolicyFile(Policy.model_validate(fields), one["digest"], Path(f"{url}{POLICIES}"))
    names = ", ".join(one["name"] for one in listed) or "none"
    raise ConfigurationError(f"{url} has no policy {name!r} (there: {names}), and there is no such file")


def weights_of(policy: "PolicyFile") -> dict[str, float] | None:
    """Returns the weights of the policy's reward; None where the model's own count."""
    given = policy.policy.weights
    return {str(dimension): weight for dimension, weight in given.items()} if given else None


def refuse_another_model(policy: "PolicyFile", model: ModelRef) -> None:
    """Raises ConfigurationError where the policy was made for another model than answers."""
    from medreward.screening.policy import check_policy

    check_policy(policy, model.fingerprint, DIMENSIONS, has_uncertainty=True)
