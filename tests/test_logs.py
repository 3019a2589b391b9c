"""What a server's process writes on stderr is JSON lines, whoever writes it."""

import json
import subprocess
import sys

from commands import CLEAN


def test_a_librarys_warning_is_a_line_of_json_without_what_it_quotes() -> None:
    program = "import warnings; from medreward import logs; logs.configure('info'); warnings.warn('Jane Doe, 1950')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=CLEAN, check=True)
    line = json.loads(done.stderr)
    assert (line["level"], line["category"], line["at"]) == ("warning", "UserWarning", "<string>:1")
    assert "Jane" not in done.stderr
