"""A process of .venv/ray: a Ray cluster on loopback that serves the application, and does what a test tells it.

It reads a JSON line for each command and answers with one. Nothing of it is left when its stdin is closed.
"""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import ray
from ray import serve

from deploy.monitors import free_port
from medreward.scale.ray_fleet import NAMESPACE, fleet_of
from medreward.scale.serve_app import GRPC_SERVICER, build

APPLICATION = DEPLOYMENT = "medreward"
PATIENCE_S = 600  # on a busy machine


def patiently(start: Callable[[], object], undo: Callable[[], object] = lambda: None) -> None:
    """Starts something of Ray, whose own limits of 30 and 60 seconds are too short for a busy machine."""
    for _ in range(5):
        try:
            start()
            return
        except Exception as error:
            last = error
            undo()
    raise last


class Cluster:
    def __init__(self, temp: str) -> None:
        self.ports = {"port": free_port(), "grpc_port": free_port()}
        patiently(
            lambda: ray.init(
                address="local",
                num_cpus=16,  # of which each replica takes a part; the machine has fewer
                include_dashboard=False,
                object_store_memory=80_000_000,
                log_to_driver=False,
                logging_level=logging.ERROR,
                namespace=NAMESPACE,
                _temp_dir=temp,
            ),
            ray.shutdown,
        )
        grpc_options = {"port": self.ports["grpc_port"], "grpc_servicer_functions": [GRPC_SERVICER]}
        http_options = {"host": "127.0.0.1", "port": self.ports["port"]}
        patiently(lambda: serve.start(proxy_location="HeadOnly", http_options=http_options, grpc_options=grpc_options))

    def deploy(self, settings: dict[str, Any], **options: Any) -> dict[str, int]:
        """Serves with these settings and options of the deployment; called again, it is an update."""
        application = build(settings)
        deployment = application._bound_deployment.options(ray_actor_options={"num_cpus": 0.1}, **options)
        bound = deployment.bind(*application._bound_deployment.init_args)
        serve.run(bound, name=APPLICATION, route_prefix="/")
        return self.ports

    def address(self) -> str:
        """Returns where other programs connect to the cluster."""
        return str(ray.get_runtime_context().gcs_address)

    def members(self) -> list[dict[str, str]]:
        found = ray.get(fleet_of(APPLICATION, DEPLOYMENT).members.remote(), timeout=PATIENCE_S)
        return [asdict(member) for member in found]

    def kill(self, replica: str) -> None:
        """Kills the replica's process in the middle of whatever it does."""
        actors = ray.util.list_named_actors(all_namespaces=True)
        (actor,) = [one for one in actors if one["name"].endswith(f"#{replica}")]
        ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]), no_restart=True)

    def until(self, replicas: int) -> None:
        """Returns when so many replicas run, and none that is about to end."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            states = serve.status().applications[APPLICATION].deployments[DEPLOYMENT].replica_states
            if dict(states) == {"RUNNING": replicas} and len(self.members()) == replicas:
                return
            time.sleep(0.2)
        raise TimeoutError(f"not {replicas} replicas: {serve.status()}")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as temp:  # sockets' paths must be short
        cluster = Cluster(temp)
        try:
            for line in sys.stdin:
                call = json.loads(line)
                try:
                    answer = {"value": getattr(cluster, call["function"])(*call["given"], **call["more"])}
                except Exception as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                sys.stdout.write(json.dumps(answer) + "\n")
                sys.stdout.flush()
        finally:
            serve.shutdown()
            ray.shutdown()


if __name__ == "__main__":
    main()
