"""OpenRLHF's own client. Its package imports what needs a GPU, so the one file is loaded, with its logger replaced."""

import asyncio
import importlib.util
import logging
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from trainers.answering import answer_calls

stub: Any = ModuleType("openrlhf.utils.logging_utils")
stub.init_logger = logging.getLogger
sys.modules[stub.__name__] = stub
path = Path(sysconfig.get_path("purelib"), "openrlhf", "utils", "agent.py")
spec = importlib.util.spec_from_file_location("openrlhf_agent", path)
assert spec
assert spec.loader
agent = importlib.util.module_from_spec(spec)
spec.loader.exec_module(agent)


def by_url(urls: list[str], queries: list[str], prompts: list[str], labels: list[Any]) -> Any:
    executor = agent.SingleTurnAgentExecutor(urls)
    return asyncio.run(executor._fetch_rewards_via_http(queries, prompts, labels))


def by_function(file: str, queries: list[str], prompts: list[str], labels: list[Any]) -> Any:
    executor = agent.SingleTurnAgentExecutor([file])
    return asyncio.run(executor._fetch_rewards_via_func(queries, prompts, labels))


answer_calls({"by_url": by_url, "by_function": by_function})
