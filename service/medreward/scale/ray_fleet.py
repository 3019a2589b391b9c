"""The fleet's actor, and how a replica finds it. It is imported in Ray's own processes alone."""

from collections.abc import Callable
from typing import Final

import ray
from ray import serve

from medreward.scale.fleet import Fleet, Member

NAMESPACE: Final = "medreward"
REPLICA_PREFIX: Final = "SERVE_REPLICA::"  # of the names that Ray Serve gives its replicas' actors


def alive_replicas() -> set[str]:
    """Returns the ids of all replicas of Ray Serve that live in this cluster."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {one["name"].rpartition("#")[2] for one in actors if one["name"].startswith(REPLICA_PREFIX)}


class FleetActor:
    """The one Fleet of a deployment. It is there as long as the cluster; replicas join anew with each health check,
    so that one which was lost and began anew soon knows them again."""

    def __init__(self) -> None:
        self._fleet = Fleet()

    def join(self, member: Member) -> str | None:
        return self._fleet.join(member, alive_replicas() | {member.replica})

    def members(self) -> list[Member]:
        return self._fleet.members(alive_replicas())


def fleet_of(application: str, deployment: str) -> "ray.actor.ActorHandle[FleetActor]":
    """Returns the actor of this deployment's fleet, which is started where it is not there."""
    options = {"num_cpus": 0, "lifetime": "detached", "max_restarts": -1, "max_task_retries": 3}
    name = f"fleet:{application}:{deployment}"
    return ray.remote(FleetActor).options(name=name, namespace=NAMESPACE, get_if_exists=True, **options).remote()


async def join_fleet(member_of: Callable[[str], Member]) -> str | None:
    """Joins the fleet of the replica that this process is; `member_of` gets its id. Returns why it is refused, or
    None."""
    me = serve.get_replica_context()
    refused: str | None = await fleet_of(me.app_name, me.deployment).join.remote(member_of(me.replica_id.unique_id))
    return refused
