"""`medreward keys`, and what `serve` asks for before others may reach it."""

import json
import time
from pathlib import Path

import httpx
import pytest

from commands import ANY_PORTS, Run, assert_refused, serving
from keyring import bearer
from medreward.api.access.keys import read_keys

pytestmark = pytest.mark.slow

BODY = {"question": "Is there a fracture?", "response": "Yes."}


def test_a_key_is_made_listed_and_revoked(run_here: Run, tmp_path: Path) -> None:
    limits = ["--lane", "bulk", "--scope", "score", "--scope", "metrics", "--triples-per-second", "50"]
    limits += ["--requests-per-second", "5", "--in-flight", "4", "--expires", "2040-02-03"]
    made = run_here("keys", "new", "keys.jsonl", "--name", "ward 7", "--tenant", "ward-7", *limits)
    assert made.returncode == 0
    (text,) = made.stdout.splitlines()
    _, id_, secret = text.split("_", 2)
    assert text not in made.stderr
    (key,) = read_keys(tmp_path / "keys.jsonl")
    assert (key.id, key.name, key.tenant, key.lanes, key.in_flight) == (id_, "ward 7", "ward-7", ("bulk",), 4)

    listed = run_here("keys", "list", "keys.jsonl", "--json")
    (about,) = json.loads(listed.stdout)
    assert about["scopes"] == ["score", "metrics"]
    assert about["expires"] == "2040-02-03T00:00:00Z"
    assert (about["requests_per_second"], about["triples_per_second"]) == (5, 50)
    table = run_here("keys", "list", "keys.jsonl")
    assert "5 requests/s, 50 triples/s, 4 in flight" in table.stdout
    for kept in (secret, key.salt, key.hash):
        assert kept not in listed.stdout + table.stdout

    assert run_here("keys", "revoke", "keys.jsonl", id_).returncode == 0
    assert read_keys(tmp_path / "keys.jsonl") == []


def test_revoking_leaves_the_rest_of_the_file_as_it_is(run_here: Run, tmp_path: Path) -> None:
    file = tmp_path / "keys.jsonl"
    file.write_text("# the wards' keys\n\n")
    file.chmod(0o640)
    first, second = (
        json.loads(run_here("keys", "new", file, "--name", name, "--tenant", "t", "--json").stdout) for name in "ab"
    )
    line = file.read_text().splitlines()[-1]
    run_here("keys", "revoke", file, first["id"])
    assert file.read_text() == f"# the wards' keys\n\n{line}\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert [key.id for key in read_keys(file)] == [second["id"]]
    assert [path.name for path in tmp_path.iterdir()] == ["keys.jsonl"]


def test_what_cannot_be_done_is_one_line_and_exit_2(run_here: Run, tmp_path: Path) -> None:
    new = ["keys", "new", "keys.jsonl", "--name", "n"]
    assert_refused(run_here(*new), "--tenant")
    assert_refused(run_here(*new, "--tenant", "not one word"), "tenant")
    assert_refused(run_here(*new, "--tenant", "t", "--triples-per-second", "0"), "0")
    assert_refused(run_here(*new, "--tenant", "t", "--lane", "fast"), "fast")
    assert_refused(run_here("keys", "list", "none.jsonl"), "none.jsonl", "No such file")
    assert not (tmp_path / "keys.jsonl").exists()
    (tmp_path / "keys.jsonl").write_text("{}\n")
    assert_refused(run_here("keys", "list", "keys.jsonl"), "line 1", "id")
    (tmp_path / "keys.jsonl").write_text("")
    assert_refused(run_here("keys", "revoke", "keys.jsonl", "0123"), "0123")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
@pytest.mark.parametrize("door", ["--host", "--admin-host"])
def test_without_keys_others_cannot_reach_it(run: Run, door: str, host: str) -> None:
    done = run("serve", "--model", "fake", *ANY_PORTS, door, host)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    event = json.loads(line)["event"]
    assert event.startswith(f"setting {door[2:].replace('-', '_')}: ")
    assert "--keys-file" in event
    assert "--insecure" in event


def test_a_keys_file_that_is_none_is_named(run: Run, tmp_path: Path) -> None:
    done = run("serve", "--model", "fake", *ANY_PORTS, "--keys-file", "missing.jsonl")
    assert done.returncode == 2
    assert "keys file missing.jsonl: No such file" in done.stderr
    (tmp_path / "broken.jsonl").write_text('\n{"id": "x"}\n')
    done = run("serve", "--model", "fake", *ANY_PORTS, "--keys-file", "broken.jsonl")
    assert done.returncode == 2
    assert "keys file broken.jsonl, line 2" in done.stderr


def test_insecure_is_a_choice(tmp_path: Path) -> None:
    with serving(tmp_path, "--insecure", "--host", "0.0.0.0") as served:
        reply = httpx.post(f"{served.url}/score", json=BODY, headers={"Host": "any.example"}, timeout=60)
        assert reply.status_code == 200


def test_with_keys_others_may_reach_it_and_the_command_line_has_its_key(run: Run, tmp_path: Path) -> None:
    made = run("keys", "new", "keys.jsonl", "--name", "n", "--tenant", "t")
    key = made.stdout.strip()
    with serving(tmp_path, "--keys-file", "keys.jsonl", "--host", "0.0.0.0") as served:
        assert "keys travel in clear text" in served.log.read_text()
        assert httpx.post(f"{served.url}/score", json=BODY, timeout=60).status_code == 401
        assert httpx.post(f"{served.url}/score", json=BODY, headers=bearer(key), timeout=60).status_code == 200
        asked = ["score", "--url", served.url, "--question", "q", "--response", "r"]
        assert_refused(run(*asked), "unauthenticated")
        assert run(*asked, MEDREWARD_KEY=key).returncode == 0
        assert key not in served.log.read_text()

        revoked = time.monotonic()
        assert run("keys", "revoke", "keys.jsonl", key.split("_")[1]).returncode == 0
        while httpx.post(f"{served.url}/score", json=BODY, headers=bearer(key), timeout=60).status_code == 200:
            assert time.monotonic() - revoked < 120
            time.sleep(0.05)
