"""Runs in .venv/trainers: calls a trainer's own code, a call and its answer one line of JSON each."""

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def answer_calls(functions: dict[str, Callable[..., Any]]) -> None:
    """Answers until there are no more calls: what the function returned or raised, and what our adapters logged."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # trainers print
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("medreward").addHandler(handler)
    for line in sys.stdin:
        call = json.loads(line)
        logged.clear()
        answer: dict[str, Any] = {"logged": logged}
        try:
            answer["value"] = functions[call["function"]](**call["given"])
        except Exception as error:
            traceback.print_exc()
            answer["error"] = [type(error).__name__, str(error)]
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # a trainer's libraries take seconds to leave, and no test waits for anything of theirs
