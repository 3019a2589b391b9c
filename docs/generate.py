"""Writes docs/openapi.json, docs/settings.md and docs/policy.schema.json, made from the code. `make check` sees that
they are current."""

import json
import sys
from pathlib import Path

from prometheus_client import CollectorRegistry

from medreward.api.access.keyring import Keyring
from medreward.api.rest.app import create_app
from medreward.engine.engine import Engine
from medreward.metrics import Metrics
from medreward.screening.policy import Policy
from medreward.screening.screening import Screening
from medreward.settings import ENV_PREFIX, Settings


def settings_table() -> str:
    """Returns docs/settings.md."""
    head = [
        "# Settings of `medreward serve`",
        "",
        "Made from `service/medreward/settings.py` by `make generated`. A flag wins over its variable.",
        "",
        "| flag | variable | default | what it is |",
        "| --- | --- | --- | --- |",
    ]
    rows = [
        f"| `--{name.replace('_', '-')}` | `{ENV_PREFIX}{name.upper()}` | `{field.default}` | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join([*head, *rows]) + "\n"


def openapi() -> str:
    """Returns docs/openapi.json."""
    engine = Engine(Settings(), Metrics(CollectorRegistry()))
    app = create_app(engine, Keyring(None), Screening(engine))
    return json.dumps(app.openapi(), indent=1) + "\n"


def policy_schema() -> str:
    """Returns docs/policy.schema.json, by which an editor checks a policy while it is written."""
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A screening policy of MedReward"}
    return json.dumps(Policy.model_json_schema() | about, indent=1) + "\n"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "settings.md").write_text(settings_table(), "utf-8")
    (folder / "openapi.json").write_text(openapi(), "utf-8")
    (folder / "policy.schema.json").write_text(policy_schema(), "utf-8")
