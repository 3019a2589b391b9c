"""The bundled model in LitServe, as somebody would serve it who knows it: our backend, our rules for texts and images,
batches across requests, and images that are decoded and encoded once a worker. No lanes, no limits, no checks.

`python -m loadtest.peer_bundled PORT WORKERS` runs it, with our package on the path. It shares the
cores among its workers.
"""

import os
import sys
from base64 import b64decode
from hashlib import sha256
from typing import Any, Final

import litserve

from medreward.backends.base import Group, ModelImage
from medreward.caches import MIB, ByteCache
from medreward.encoding.image import Pixels, decode, probe
from medreward.engine.limits import image_limits
from medreward.engine.model import open_model
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Options, TooLong
from medreward.workers.device.loading import open_backend

BATCH: Final = 16
BATCH_SECONDS: Final = 0.01
CUT: Final = Options(too_long=TooLong.CUT_MIDDLE)


class Steps:
    """What LitServe asks for, request by request."""

    def setup(self, device: str) -> None:
        settings = Settings(threads=max(1, len(os.sched_getaffinity(0)) // int(sys.argv[2])), device="cpu")
        self._model = open_model(settings)
        self._backend = open_backend(settings, self._model.manifest, self._model.folder)
        self._backend.warm_up()
        self._limits = image_limits(settings)
        self._pixels: ByteCache[Pixels] = ByteCache(256 * MIB)

    def decode_request(self, request: dict[str, Any]) -> Group:
        item = request["items"][0] if "items" in request else request
        data = b64decode(item["image"], validate=True)
        digest = sha256(data).hexdigest()
        pixels = self._pixels.get(digest)
        if pixels is None:
            header = probe(data, self._limits)
            pixels = decode(data, header, self._model.image.of(header.width, header.height))
            self._pixels.put(digest, pixels)
        prompt = self._model.text.prompt(item["question"], has_image=True)
        texts = item["responses"] if "responses" in item else [item["response"]]
        answers = [self._model.text.answer(prompt, text, CUT).ids for text in texts]
        return Group(ModelImage(digest, pixels), prompt.ids, answers)

    def batch(self, groups: list[Group]) -> list[Group]:
        return groups

    def predict(self, groups: list[Group]) -> list[list[list[float]]]:
        return [logits.mean(1)[:, : len(DIMENSIONS)].tolist() for logits in self._backend.score(groups)]

    def unbatch(self, rows: list[list[list[float]]]) -> list[list[list[float]]]:
        return rows

    def encode_response(self, rows: list[list[float]]) -> dict[str, Any]:
        return {"results": [_result(place, logits) for place, logits in enumerate(rows)]}


def _result(place: int, logits: list[float]) -> dict[str, Any]:
    """Returns one answer in the shape of our own replies, so that one check reads both."""
    by_name = dict(zip(DIMENSIONS, logits, strict=True))
    found = {"item": 0, "response": place, "status": "ok", "cached": False}
    return {**found, "scores": by_name, "logits": by_name, "reward": logits[-1]}


Api = type("Api", (Steps, litserve.LitAPI), {"__module__": __name__})

# vLLM brings an MCP that LitServe 0.2 takes for one with fastmcp, and then does not start. No tool is offered here.
litserve.server._MCP_AVAILABLE = False

if __name__ == "__main__":
    server = litserve.LitServer(
        Api(api_path="/score", max_batch_size=BATCH, batch_timeout=BATCH_SECONDS),
        accelerator="cpu",
        devices=1,
        workers_per_device=int(sys.argv[2]),
        fast_queue=True,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
