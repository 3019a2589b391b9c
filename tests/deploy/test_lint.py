"""What `make lint-deploy` lets pass: a finding on the objects that its waiver is about, and no other."""

import runpy

import pytest

from deploy.charts import ROOT

LINT = runpy.run_path(str(ROOT / "deploy" / "lint.py"))


@pytest.mark.parametrize(
    ("check", "where", "passes"),
    [
        ("CKV_K8S_22", "gpu/Deployment.one-medreward", True),
        ("CKV_K8S_22", "cpu/Deployment.one-medreward", False),  # its root is read-only
        ("CKV_K8S_35", "gate/Job.one-medreward-gate", True),
        ("CKV_K8S_35", "gate/Deployment.one-medreward", False),  # the server's keys are a file
        ("CKV_K8S_8", "cpu/Deployment.one-medreward", False),
        ("CKV_K8S_16", "cpu/Deployment.one-medreward", False),  # a check that nobody waived
    ],
)
def test_a_waiver_is_about_its_own_objects(check: str, where: str, passes: bool) -> None:
    assert bool(LINT["Finding"](check, where, "").waivers()) is passes


def test_every_waiver_says_why() -> None:
    assert all(waiver.why for waiver in LINT["WAIVED"])
