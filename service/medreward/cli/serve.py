"""`medreward serve`: every field of Settings is a flag."""

import gc
import logging
import os
import sys
from typing import Any, Final

import click
from pydantic import ValidationError

from medreward import logs
from medreward.errors import ConfigurationError
from medreward.settings import ENV_PREFIX, Settings

VALUE: Final[dict[str, Any]] = {"metavar": "VALUE"}
FLAG: Final[dict[str, Any]] = {"is_flag": True, "flag_value": "true", "default": None}


def read_settings(**given: Any) -> Settings:
    """Returns the settings from flags and the environment; a flag that was not given is None.

    Raises ConfigurationError where a value is wrong.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"setting {first['loc'][0]}: {first['msg']}") from None


def run(**given: str | None) -> None:
    """Serves until SIGTERM."""
    settings = read_settings(**given)
    logs.configure(settings.log_level)
    import uvloop

    # gRPC is never used in a child; its handlers around forking only write lines of their own among ours.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from medreward.api.server import serve  # slow to import: after the settings are known to be right

    # What is loaded by now stays, and a request's objects die by their counts: collecting took a quarter of the time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    if settings.audit:
        # The thread that writes the log waits so long for a busy event loop to let it go on; by default 5 ms.
        sys.setswitchinterval(0.0005)
    try:
        uvloop.run(serve(settings))
    except ConfigurationError as error:
        logging.getLogger("medreward").error(str(error))  # a server's stderr is JSON lines to the end
        sys.exit(2)


command = click.Command(
    "serve",
    params=[
        click.Option(
            [f"--{name.replace('_', '-')}", name],
            help=f"{field.description}  [default: {field.default}; env: {ENV_PREFIX}{name.upper()}]",
            **(FLAG if field.annotation is bool else VALUE),
        )
        for name, field in Settings.model_fields.items()
    ],
    callback=run,
    help="Serve a model over REST and gRPC until SIGTERM.",
)
