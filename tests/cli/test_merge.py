"""`medreward merge`: from folders of experts to one that is served, and to a word on which expert to keep apart."""

import json
from pathlib import Path

import pytest

from backends.torch_vlm import checkpoints
from bench.runs import make_run
from bench.sets import some_cases
from commands import Run
from lab.merging.experts import finished, levels_of, write_base, write_expert
from medreward.bench.finished import open_run
from medreward.bench.gate.policy import read_policy
from medreward.bench.layout import write
from medreward.bench.merging import ExpertRun, against_experts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated"),  # peft 0.21 still asks
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    base = write_base(folder / "base")
    write_expert(base, folder / "chest", 1, levels_of(1))
    write_expert(base, folder / "brain", 2, levels_of(2), r=2)
    write(folder / "data", cases := some_cases(12, ("brain", "lung")), {case.key: {} for case in cases})
    return folder


def test_experts_become_a_model_that_is_served_and_tested_against_each(
    made: Path, run_here: Run, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    experts = f"lung={made / 'chest'}", f"brain={made / 'brain'}"
    flags = "--base", made / "base", "--method", "ties", "--out", out, "--data", made / "data", "--json"
    found = run_here("merge", *experts, *flags)
    facts = json.loads(found.stdout)
    assert found.returncode == 1  # twelve cases show nothing
    assert [check["name"] for check in facts["checks"]] == ["expert/lung", "expert/brain"]
    assert {check["n"] for check in facts["checks"]} == {6}
    assert facts["keep_apart"]
    assert list(facts["conflicts"]["cosine"]) == ["lung|brain"]
    report = json.loads((out / "merge" / "conflicts.json").read_text())
    assert report["whole"] == facts["conflicts"]
    page = (out / "merge" / "conflicts.html").read_text()
    assert "layers.0" in page
    assert "<svg" in page
    assert "expert/lung" in page
    assert len(json.loads((out / "golden.json").read_text())) > 2
    scored = run_here("score", "--model", out, "--question", "is there a fracture ?", "--response", "yes", "--json")
    assert scored.returncode == 0, scored.stderr  # it opens, and its golden triples hold
    assert json.loads(scored.stdout)["model"]["fingerprint"] == facts["fingerprint"]


def test_experts_that_do_not_fit_are_refused_with_the_reason(made: Path, run_here: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    checkpoints.write_checkpoint(other, "llava", seed=9)
    finished(other)
    found = run_here("merge", made / "chest", "--base", other, "--method", "ties", "--out", tmp_path / "out")
    assert found.returncode == 1
    assert "were not merged: " in found.stderr
    assert "another base" in found.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weights", ["1,x", "0,0", "-1,2", "1,2,3"])
def test_weights_that_cannot_be_meant_are_refused(made: Path, run_here: Run, tmp_path: Path, weights: str) -> None:
    flags = "--base", made / "base", "--method", "ties", "--out", tmp_path / "out", f"--expert-weights={weights}"
    assert run_here("merge", made / "chest", made / "brain", *flags).returncode == 2


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs on the same cases: a good model, an equal one, and one that is bad."""
    folder, cases = tmp_path_factory.mktemp("runs"), some_cases(600, ("brain", "lung"))
    shares = {"good": 0.8, "equal": 0.8, "bad": 0.5}
    return {
        name: make_run(folder / name, cases, right=right, model=name, seed=0 if right > 0.7 else 1)
        for name, right in shares.items()
    }


def test_a_merged_model_is_shown_to_keep_one_expert_and_to_lose_another(runs: dict[str, Path]) -> None:
    good, equal, bad = (open_run(runs[name]) for name in ("good", "equal", "bad"))
    policy = read_policy("default").policy
    experts = [ExpertRun("lung", equal, "lung"), ExpertRun("brain", equal, "brain")]
    assert [check.status for check in against_experts(policy, good, experts)] == ["pass", "pass"]
    lost = against_experts(policy, bad, [*experts, ExpertRun("skin", equal, "skin")])
    assert {check.name: check.status for check in lost} == {
        "expert/lung": "fail",
        "expert/brain": "fail",
        "expert/skin": "no label",
    }
    assert all(check.n == 300 for check in lost if check.name != "expert/skin")
