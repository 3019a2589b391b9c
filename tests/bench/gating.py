"""The gate as a test calls it, and what it left behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medreward.cli import app


def gate(*flags: str | Path) -> int:
    code: int = app.main(["bench", "gate", *map(str, flags)], standalone_mode=False)
    return code


def decided(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "gate.json").read_text())
    return found


def statuses(run: Path) -> dict[str, str]:
    return {check["name"]: check["status"] for check in decided(run)["checks"]}


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Of a JSON object."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def edit_rows(run: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = rows_of(run)
    change(rows)
    (run / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
