"""A TOML file as what it must be, or one line that says what is wrong with it."""

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from medreward.errors import ConfigurationError

M = TypeVar("M", bound=BaseModel)


def read_toml(path: Path, shape: type[M], what: str) -> M:
    try:
        return shape.model_validate(tomllib.loads(path.read_text("utf-8")))
    except OSError:
        raise ConfigurationError(f"no {what} at {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{path}: {where}: {first['msg']}" if where else f"{path}: {first['msg']}") from None
