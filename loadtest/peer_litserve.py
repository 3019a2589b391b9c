"""The bare handler's work in LitServe: the image is decoded in the worker processes, one a core."""

import sys
from typing import Any

import litserve
from loadtest.bare import decode

WORKERS = 2


class Steps:
    def setup(self, device: str) -> None:
        pass

    def decode_request(self, request: dict[str, Any]) -> bytes:
        return decode(request["image"])

    def predict(self, pixels: bytes) -> float:
        return 0.5

    def encode_response(self, output: float) -> dict[str, float]:
        return {"score": output}


Api = type("Api", (Steps, litserve.LitAPI), {"__module__": __name__})

if __name__ == "__main__":
    server = litserve.LitServer(
        Api(api_path="/score"), accelerator="cpu", devices=1, workers_per_device=WORKERS, fast_queue=True
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
