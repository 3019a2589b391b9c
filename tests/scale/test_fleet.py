"""Replicas of one release have one model."""

from dataclasses import replace

from medreward.scale.fleet import Fleet, Member
from medreward.scale.replicas import as_targets

ONE = Member("one", "release", "sha256:a", "127.0.0.1:1")
TWO = replace(ONE, replica="two", metrics="127.0.0.1:2")
EVERYONE = {"one", "two"}


def test_replicas_with_the_same_model_serve_together() -> None:
    fleet = Fleet()
    assert fleet.join(ONE, EVERYONE) is None
    assert fleet.join(TWO, EVERYONE) is None
    assert fleet.join(ONE, EVERYONE) is None  # with each health check
    assert {member.replica for member in fleet.members(EVERYONE)} == EVERYONE


def test_a_replica_with_another_model_is_refused_and_told_of_whom() -> None:
    fleet = Fleet()
    fleet.join(ONE, EVERYONE)
    refused = fleet.join(replace(TWO, fingerprint="sha256:b"), EVERYONE)
    assert refused
    assert "sha256:a" in refused
    assert "sha256:b" in refused
    assert "replica one" in refused
    assert [member.replica for member in fleet.members(EVERYONE)] == ["one"]


def test_a_new_release_may_have_another_model() -> None:
    fleet = Fleet()
    fleet.join(ONE, EVERYONE)
    assert fleet.join(replace(TWO, fingerprint="sha256:b", release="next"), EVERYONE) is None


def test_a_replica_that_died_binds_nobody() -> None:
    fleet = Fleet()
    fleet.join(ONE, EVERYONE)
    assert fleet.join(replace(TWO, fingerprint="sha256:b"), {"two"}) is None


def test_prometheus_reads_where_the_metrics_of_each_replica_are() -> None:
    assert as_targets([ONE, TWO]) == [
        {"targets": ["127.0.0.1:1"], "labels": {"replica": "one", "fingerprint": "sha256:a"}},
        {"targets": ["127.0.0.1:2"], "labels": {"replica": "two", "fingerprint": "sha256:a"}},
    ]
