"""Writes what is made from something else in the folders for operators; `make check` sees that it is current.

`python deploy/chart.py ROOT` writes below ROOT:
- helm/medreward/values.schema.json and README.md, from the values of the chart, their comments and `Settings`;
- the copies in helm/medreward/files of the rules and dashboards, because a chart cannot reach files outside of it.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from medreward.settings import Settings

HERE: Final = Path(__file__).parent
CHART: Final = HERE.parent / "helm" / "medreward"
#: Settings that other values of the chart decide.
DECIDED: Final = {
    *("model", "models_dir", "host", "port", "grpc_port", "admin_host", "admin_port", "keys_file", "insecure"),
    *("tls_cert", "tls_key", "tls_client_ca", "drain_seconds", "load_seconds", "policies", "audit"),
}
TYPES: Final = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@dataclass(frozen=True)
class Value:
    name: str
    about: str
    rules: dict[str, Any]  # what the lines with @ say
    default: Any
    inner: list["Value"]  # where it is a mapping with keys of its own

    def schema(self) -> dict[str, Any]:
        if self.inner:
            inner = {value.name: value.schema() for value in self.inner}
            return {"type": "object", "additionalProperties": False, "properties": inner}
        if "$ref" in self.rules:
            return self.rules
        kind = {} if self.default is None else {"type": TYPES[type(self.default)]}
        return {**kind, **({"description": self.about} if self.about else {}), **self.rules}

    def rows(self, prefix: str = "") -> Iterator[str]:
        """Yields lines of the table in README.md."""
        if self.inner:
            for value in self.inner:
                yield from value.rows(f"{prefix}{self.name}.")
        else:
            yield f"| `{prefix}{self.name}` | `{json.dumps(self.default)}` | {self.about} |"


def read_values(text: str) -> list[Value]:
    """Returns the values in the text of a values.yaml, each with the comment above it."""
    lines = text.splitlines()
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return _inner(root, lines)


def _inner(node: yaml.MappingNode, lines: list[str]) -> list[Value]:
    return [_value(key, value, lines) for key, value in node.value]


def _value(key: yaml.ScalarNode, node: yaml.Node, lines: list[str]) -> Value:
    first = key.start_mark.line
    while lines[first - 1].lstrip().startswith("#"):
        first -= 1
    comments = [line.lstrip(" #").rstrip() for line in lines[first : key.start_mark.line]]
    about = " ".join(line for line in comments if not line.startswith("@"))
    rules = json.loads("".join(line.removeprefix("@") for line in comments if line.startswith("@")) or "{}")
    inner = _inner(node, lines) if isinstance(node, yaml.MappingNode) and not node.flow_style else []
    return Value(str(key.value), about, rules, yaml.safe_load(yaml.serialize(node)), inner)


def settings_schema() -> dict[str, Any]:
    """Returns the schema of the server's settings that may stand in the chart's values."""
    fields = {name: field for name, field in Settings.model_fields.items() if name not in DECIDED}
    made = Settings.model_json_schema()["properties"]
    rules = ("type", "enum", "pattern", "minimum", "exclusiveMinimum", "maximum")
    properties = {}
    for name, field in fields.items():
        kept = {rule: made[name][rule] for rule in rules if rule in made[name]}
        if kept.get("type") not in ("integer", "number", "boolean"):
            kept |= {"type": "string"}  # lists are written as the variable has them, paths are strings
        if name == "image_size":
            kept = {"type": "integer", "exclusiveMinimum": 0}
        properties[name] = kept | {"description": field.description}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def schema(values: list[Value]) -> str:
    anywhere = {"global": {"type": "object"}}  # helm itself puts it there
    top = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "additionalProperties": False,
        "properties": {value.name: value.schema() for value in values} | anywhere,
        "$defs": {"settings": settings_schema()},
    }
    return json.dumps(top, indent=1) + "\n"


def readme(values: list[Value]) -> str:
    head = (CHART / "README.head.md").read_text("utf-8")
    rows = [row for value in values for row in value.rows()]
    return "\n".join([head, "| value | default | what it is |", "| --- | --- | --- |", *rows]) + "\n"


def main(root: Path) -> None:
    chart = root / "helm" / "medreward"
    (chart / "files" / "dashboards").mkdir(parents=True, exist_ok=True)
    values = read_values((CHART / "values.yaml").read_text("utf-8"))
    (chart / "values.schema.json").write_text(schema(values), "utf-8")
    (chart / "README.md").write_text(readme(values), "utf-8")
    shutil.copyfile(HERE / "prometheus" / "medreward.rules.yml", chart / "files" / "medreward.rules.yml")
    for dashboard in sorted((HERE / "grafana").glob("*.json")):
        shutil.copyfile(dashboard, chart / "files" / "dashboards" / dashboard.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
