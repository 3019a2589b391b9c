"""`medreward swap`, `sleep` and `wake` on a running server."""

import json
from pathlib import Path

import pytest

from commands import Run, assert_refused, serving
from sisters import sister

pytestmark = pytest.mark.slow


def test_server_changes_its_model_sleeps_and_wakes(run_here: Run, tmp_path: Path) -> None:
    one, two = sister(tmp_path / "one", 1.0), sister(tmp_path / "two", 2.0)
    with serving(tmp_path, "--model", str(one)) as server:
        admin = ("--url", server.admin_url)
        swapped = run_here("swap", two, *admin, "--json")
        assert swapped.returncode == 0, swapped.stderr
        state = json.loads(swapped.stdout)
        assert state["previous"]["fingerprint"] != state["model"]["fingerprint"]
        refused = run_here("swap", tmp_path / "none", *admin)
        assert refused.returncode == 1
        assert "the old model serves" in refused.stderr
        back = run_here("swap", "--rollback", *admin)
        assert back.returncode == 0
        assert state["previous"]["fingerprint"] in back.stdout.splitlines()[0]
        assert "asleep" in run_here("sleep", "--level", "2", *admin).stdout
        assert "serving" in run_here("wake", *admin).stdout


def test_what_is_no_admin_port_is_told_so(run_here: Run) -> None:
    assert_refused(run_here("wake", "--url", "http://127.0.0.1:9"), "no answer from http://127.0.0.1:9")
    assert_refused(run_here("swap", "--url", "http://127.0.0.1:9"), "name a MODEL, or give --rollback")
