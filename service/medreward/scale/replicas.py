"""Where all replicas have their metrics, for `file_sd_configs` of Prometheus: `python -m medreward.scale.replicas`."""

import argparse
import json
import logging
import sys
from collections.abc import Iterable
from typing import Any

from medreward.scale.fleet import Member


def as_targets(members: Iterable[Member]) -> list[dict[str, Any]]:
    """Returns one group of targets for each replica, in Prometheus' own form."""
    return [
        {"targets": [member.metrics], "labels": {"replica": member.replica, "fingerprint": member.fingerprint}}
        for member in members
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ray", default="auto", help="the cluster: host:port, or auto for the one of this machine")
    parser.add_argument("--application", default="medreward", help="its name in the configuration of Ray Serve")
    given = parser.parse_args()
    import ray

    from medreward.scale.ray_fleet import fleet_of

    ray.init(address=given.ray, log_to_driver=False, logging_level=logging.ERROR)
    members = ray.get(fleet_of(given.application, "medreward").members.remote())
    sys.stdout.write(json.dumps(as_targets(members), indent=2) + "\n")


if __name__ == "__main__":
    main()
