"""The command, in this process where a test asks for its words and files alone, without the seconds that a process of
its own takes."""

import asyncio
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest

from commands import CLEAN, MEDREWARD
from medreward.cli import main


@dataclass
class Done:
    code: int
    out: str
    err: str


async def medreward(*arguments: str | Path, **variables: str) -> Done:
    """Runs in a thread, for a command has an event loop of its own."""
    return await asyncio.to_thread(_run, *map(str, arguments), **variables)


async def medreward_apart(*arguments: str | Path, **variables: str) -> Done:
    """Runs in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        MEDREWARD,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=CLEAN | variables,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())


def _run(*arguments: str, **variables: str) -> Done:
    out, err = StringIO(), StringIO()
    with (
        patch("sys.argv", ["medreward", *arguments]),
        patch.dict(os.environ, CLEAN | variables, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main()
    assert isinstance(stopped.value.code, int)
    return Done(stopped.value.code, out.getvalue(), err.getvalue())
