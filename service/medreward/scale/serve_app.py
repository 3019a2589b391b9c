"""The service as an application of Ray Serve: `import_path: medreward.scale.serve_app:build`. See docs/ray.md."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from ray import serve
from ray.serve.config import RequestRouterConfig

from medreward.errors import ConfigurationError
from medreward.scale.policy import QueuedCost
from medreward.scale.replica import Release, Replica
from medreward.settings import Settings

AFFINITY_HEADER: Final = "x-affinity-key"
#: What Ray's processes must find in their environment, on every node: the header by which requests are spread.
ENVIRONMENT: Final = {"RAY_SERVE_SESSION_ID_HEADER_KEY": AFFINITY_HEADER}
GRPC_SERVICER: Final = "medreward.proto.reward_pb2_grpc.add_RewardServiceServicer_to_server"
NEVER_HERE: Final = ("port", "grpc_port", "tls_cert", "tls_key", "tls_client_ca")  # Ray's proxies listen
OPTIONS: Final = {
    # The engine batches by itself and admits by cost, interactive work before bulk: it shall see the requests. A
    # replica that has so many is full, and its images go to the next one on the ring.
    "max_ongoing_requests": 256,
    "max_queued_requests": 1024,
    "backpressure_config": {"status_code": 503, "retry_after_s": 1},
    "health_check_period_s": 5,
    "health_check_timeout_s": 30,
    "graceful_shutdown_wait_loop_s": 0.5,
}


class Served(Replica):
    """The replica as Ray ends it: by a finaliser that it awaits."""

    async def __del__(self) -> None:
        await self.close()


def build(args: Mapping[str, Any]) -> Any:
    """Returns the application. `args` are settings of `medreward serve` by their names, and `fingerprint`, which the
    model must have. Raises ConfigurationError for one that is unknown, wrong, or Ray's own business."""
    given = dict(args)
    ours = [name for name in NEVER_HERE if name in given]
    if ours:
        raise ConfigurationError(f"{ours[0]} is no setting of a replica: Ray's proxies listen; see docs/ray.md")
    given.setdefault("admin_port", 0)  # several replicas may share a node
    fingerprint = given.pop("fingerprint", None)
    try:
        settings = Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"setting {first['loc'][0]}: {first['msg']}") from None
    release = Release(model=settings.model, fingerprint=fingerprint, require_evidence=settings.require_evidence)
    for name in ("model", "require_evidence"):
        given.pop(name, None)  # they stand in `user_config` alone, where another release is no other deployment
    router = RequestRouterConfig(
        request_router_class="ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
    )
    deployment = serve.deployment(serve.ingress()(Served)).options(
        name="medreward",
        user_config=release.model_dump(),
        request_router_config=router,
        graceful_shutdown_timeout_s=settings.drain_seconds + 10,
        **OPTIONS,
    )
    return deployment.bind(given)


def scaling(low: int, high: int, **policy: float) -> dict[str, Any]:
    """Returns `autoscaling_config` for between `low` and `high` replicas by queued cost; `policy` are arguments of
    QueuedCost."""
    path = f"{QueuedCost.__module__}:{QueuedCost.__name__}"
    return {
        "min_replicas": low,
        "max_replicas": high,
        "upscale_delay_s": 10,
        "downscale_delay_s": 300,
        "policy": {"policy_function": path, "policy_kwargs": policy},
    }
