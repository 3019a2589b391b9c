"""KServe's own clients, in a process of their own: its protocol has the names of Triton's."""

import asyncio
from base64 import b64decode
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

from trainers.answering import answer_calls


def request_of(model: str, rows: list[dict[str, str]], binary: bool) -> InferRequest:
    inputs = []
    for name in ("image", "question", "response"):
        elements: list[Any] = [row[name] for row in rows]
        one = InferInput(name, [len(rows)], "BYTES")
        if binary:
            files = [b64decode(text) if name == "image" else text.encode() for text in elements]
            one.set_data_from_numpy(np.array(files, dtype=np.object_), binary_data=True)
        else:
            one.data = elements
        inputs.append(one)
    return InferRequest(model, inputs)


def found(response: Any) -> dict[str, Any]:
    return {output.name: output.as_numpy().tolist() for output in response.outputs}


def rest(url: str, model: str, rows: list[dict[str, str]], binary: bool) -> dict[str, Any]:
    async def run() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=120))
        return await client.infer(url, request_of(model, rows, binary), model)

    return found(asyncio.run(run()))


def grpc(url: str, model: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    async def run() -> Any:
        client = InferenceGRPCClient(url, timeout=120)
        return await client.infer(request_of(model, rows, True))

    return found(asyncio.run(run()))


answer_calls({"rest": rest, "grpc": grpc})
