"""`medreward plan`: what it prints, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from medreward.cli.plan import command
from medreward.errors import ConfigurationError
from medreward.scale.costs import read_costs
from medreward.scale.traffic import Size

SMALL = ["--triples-per-day", "1M", "--burst", "32", "--device", "H200", "--parameters", "7B"]


def planned(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(command, [*words, "--json"])
    assert done.exit_code == 0, done.output or done.exception
    plan: dict[str, Any] = json.loads(done.output)
    return plan


def refusal(*words: str) -> str:
    done = CliRunner().invoke(command, [*words])
    assert done.exit_code != 0
    return f"{done.output}{done.exception}"


def test_ten_times_the_work_needs_more_servers_and_a_price_gives_a_cost() -> None:
    few = planned(*SMALL, "--price-per-hour", "4")
    assert (few["kind"], few["devices_per_server"]) == ("sheet", 1)
    assert few["cost_per_day"] == few["servers"] * 24 * 4
    assert few["p99_s"] <= 30
    many = planned(*SMALL, "--triples-per-day", "10M")
    assert many["servers"] > few["servers"]
    assert many["busy"] <= 0.95
    assert many["cost_per_day"] is None


def test_a_stricter_p99_needs_more_servers_and_one_that_no_device_keeps_is_refused() -> None:
    assert planned(*SMALL, "--p99", "1")["servers"] > planned(*SMALL)["servers"]
    assert "the largest group takes" in refusal(*SMALL, "--p99", "0.01")


def test_a_model_too_large_for_a_device_takes_several() -> None:
    plan = planned(*SMALL, "--parameters", "72B")
    assert plan["devices_per_server"] == 2
    assert plan["free_gib"] > 0


def test_people_are_told_that_nobody_measured_the_device() -> None:
    done = CliRunner().invoke(command, SMALL)
    assert "Nobody has measured H200" in done.output
    assert "servers " in done.output


OWN = """
[devices.mine]
kind = "measured"
source = "our own run of Friday"
fixed_ms = 10
tokens_per_second = 40000
memory_gib = 40
weights_gib = 8
start_seconds = 60
"""


def test_own_measurements_and_own_traffic_are_taken(tmp_path: Path) -> None:
    (tmp_path / "costs.toml").write_text(OWN)
    lines = [json.dumps({"at": 5 + n / 4, "image": f"i{n % 9}", "responses": 8}) for n in range(200)]
    (tmp_path / "traffic.jsonl").write_text("\n".join(lines))
    files = ["--costs", str(tmp_path / "costs.toml"), "--traffic", str(tmp_path / "traffic.jsonl")]
    plan = planned("--device", "mine", *files)
    assert (plan["servers"], plan["kind"], plan["source"]) == (2, "measured", "our own run of Friday")
    assert plan["cache_hit_rate"] == pytest.approx(191 / 200)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--triples-per-day", "1M", "--device", "H20"], "did you mean 'H200'? Known are:"),
        (["--triples-per-day", "1M"], "nobody has measured H200: give the model's size with --parameters"),
        (["--device", "H200"], "exactly one of --triples-per-day and --traffic"),
        (["--triples-per-day", "many"], "'many' is no number like 7e9 or 7B"),
        (["--traffic", "/nowhere", "--device", "CPU, 3 cores"], "the trace /nowhere cannot be read"),
    ],
)
def test_what_is_wrong_is_named(words: list[str], says: str) -> None:
    assert says in refusal(*words)


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [
        ("fixed_ms = 10", "fixed_ms = -1", "fixed_ms = -1: it must be a number from 0 on"),
        ("fixed_ms = 10", "fixed_msec = 10", "unknown entry 'fixed_msec'"),
        ("weights_gib = 8", "", "lack 'weights_gib'"),
        ('"measured"', '"guessed"', "kind = 'guessed'"),
        ("[devices.mine]", "[mine]", "no file of costs"),
        ("tokens_per_second = 40000", "tokens_per_second = 0", "a rate of 0"),
    ],
)
def test_a_wrong_file_of_costs_is_refused(tmp_path: Path, was: str, now: str, says: str) -> None:
    file = tmp_path / "costs.toml"
    file.write_text(OWN.replace(was, now))
    with pytest.raises(ConfigurationError, match=says.replace("(", r"\(")):
        read_costs("mine", file, None)


def test_every_device_that_is_named_can_be_read() -> None:
    assert read_costs("CPU, 3 cores", None, None).size(Size()) == Size(100, 0, 172)
    for name in ("H200", "H100", "A100", "L40S"):
        costs = read_costs(name, None, 7e9)
        assert costs.device.tokens_per_second > 1_000
        assert costs.source
