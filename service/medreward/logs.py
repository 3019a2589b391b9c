"""Writes the log, one JSON object a line. Fields are named at the call; none is a payload or an exception's message."""

import logging
import sys
import traceback
import warnings
from datetime import UTC, datetime

import msgspec

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON. Of an exception it shows the type and the frames, never the message."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _STANDARD)
        if record.exc_info and record.exc_info[0]:
            line["error"] = record.exc_info[0].__name__
            trace = traceback.extract_tb(record.exc_info[2])
            line["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in trace]
        return msgspec.json.encode(line).decode()


def configure(level: str) -> None:
    """Sends every record from this level on, and libraries' warnings, to stderr as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("uvicorn.error", "uvicorn.access", "httpx", "httpcore", "asyncio", "urllib3", "requests"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    warnings.showwarning = _log_warning


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Logs that a library warned, and where. The warning's text stays out: it may quote what the library was given."""
    where = {"category": category.__name__, "at": f"{filename}:{lineno}"}
    logging.getLogger("medreward").warning("a library warned", extra=where)
