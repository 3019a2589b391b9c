"""Reads a TOML file into a pydantic model, and writes the text of one."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from medreward.errors import ConfigurationError

M = TypeVar("M", bound=BaseModel)


class Section(BaseModel):
    """A table of a TOML file of ours: an unknown key is an error, and a number is finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def read_toml(path: Path, shape: type[M], what: str) -> M:
    """Returns the file as `shape`; fails with one line that says what is wrong. `what` names such a file there."""
    try:
        text = path.read_text("utf-8")
    except OSError:
        raise ConfigurationError(f"no {what} at {path}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    return parse_toml(text, path, shape)


def parse_toml(text: str, path: Path, shape: type[M]) -> M:
    """Returns the text as `shape`; fails with one line. `path` is where the text lies or would lie, for that line."""
    try:
        return shape.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {where}: {first['msg']}" if where else f"{path}: {first['msg']}") from None


def toml(head: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the text of a TOML file: the head's keys, then each table."""
    return "\n".join([_lines(head), *(f"[{name}]\n{_lines(table)}" for name, table in tables.items())])


def _lines(table: Mapping[str, Any]) -> str:
    """Strings, numbers and lists of strings are written in TOML as in JSON."""
    return "".join(f"{json.dumps(key)} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items())
