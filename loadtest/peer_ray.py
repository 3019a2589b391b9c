"""The bare handler's work in Ray Serve: behind its proxy, one replica a core."""

import signal
import sys

import ray
from fastapi import Request, Response
from loadtest.bare import decode
from ray import serve

REPLICAS = 2


class Handler:
    async def __call__(self, request: Request) -> Response | dict[str, float]:
        if request.method == "GET":
            return Response("ready")
        decode((await request.json())["image"])
        return {"score": 0.5}


if __name__ == "__main__":
    ray.init(num_cpus=REPLICAS, include_dashboard=False, object_store_memory=100_000_000, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1]), "access_log": False})
    options = {"num_replicas": REPLICAS, "max_ongoing_requests": 64, "logging_config": {"enable_access_log": False}}
    serve.run(serve.deployment(Handler).options(**options).bind(), route_prefix="/")
    stop = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    signal.sigwait(stop)
    ray.shutdown()
