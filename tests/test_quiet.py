"""What importing us changes for other packages in a process, and what it leaves as it was."""

import json
import subprocess
import sys
from typing import Any

from commands import CLEAN
from medreward.quiet import STATISTICS_OFF

UNTOUCHED = {name: value for name, value in CLEAN.items() if not name.startswith(("HF_", "ORT_", "RAY_"))}


def printed(program: str, **variables: str) -> Any:
    """The JSON that a program prints, in a process that has imported nothing of ours."""
    command = [sys.executable, "-c", program]
    environment = UNTOUCHED | variables
    return json.loads(subprocess.run(command, capture_output=True, env=environment, timeout=60, check=True).stdout)


def test_child_processes_inherit_the_switches_and_no_other_variable() -> None:
    child = "import json, os; print(json.dumps({**os.environ}))"
    before = printed(child)
    after = printed(f"import subprocess, sys, medreward; subprocess.run([sys.executable, '-c', {child!r}])")
    assert after == before | STATISTICS_OFF


def test_what_the_user_has_set_stays_as_it_is() -> None:
    wanted = {"ORT_DISABLE_TELEMETRY": "0", "HF_HUB_DISABLE_TELEMETRY": ""}
    program = f"import json, os, medreward; print(json.dumps({{name: os.environ[name] for name in {[*wanted]}}}))"
    assert printed(program, **wanted) == wanted


HUB = """
import json, huggingface_hub.constants as hub, medreward
print(json.dumps([hub.HF_HUB_DISABLE_TELEMETRY, hub.HF_HUB_OFFLINE]))
"""


def test_a_hub_that_a_trainer_imported_first_is_quiet_and_still_downloads() -> None:
    assert printed(HUB) == [True, False]


def test_a_hub_that_was_imported_first_keeps_what_the_user_wants() -> None:
    assert printed(HUB, HF_HUB_DISABLE_TELEMETRY="0") == [False, False]


def test_datasets_that_a_trainer_imported_first_are_not_counted() -> None:
    program = "import json, datasets.config, medreward; print(json.dumps(datasets.config.HF_UPDATE_DOWNLOAD_COUNTS))"
    assert printed(program) is False
