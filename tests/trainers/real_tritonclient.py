"""Triton's own clients: over HTTP with bytes and with JSON, over gRPC, and both for asyncio."""

import asyncio
from base64 import b64decode, b64encode
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

from trainers.answering import answer_calls


def inputs_of(kind: Any, rows: list[dict[str, str]], **how: Any) -> list[Any]:
    """With binary_data false the image travels within JSON, where an element is its base64."""
    inputs = []
    for name in ("image", "question", "response"):
        texts = [row[name] for row in rows]
        elements: list[Any] = [text.encode() for text in texts]
        if name == "image":
            files = [b64decode(text) for text in texts]
            elements = files if how.get("binary_data", True) else [b64encode(file) for file in files]
        one = kind.InferInput(name, [len(rows)], "BYTES")
        one.set_data_from_numpy(np.array(elements, dtype=np.object_), **how)
        inputs.append(one)
    return inputs


def found(result: Any) -> dict[str, Any]:
    return {name: result.as_numpy(name).tolist() for name in ("logits", "scores", "reward")}


def http(url: str, model: str, rows: list[dict[str, str]], binary: bool) -> dict[str, Any]:
    client = tritonclient.http.InferenceServerClient(url)
    outputs = [tritonclient.http.InferRequestedOutput(name, binary) for name in ("logits", "scores", "reward")]
    inputs = inputs_of(tritonclient.http, rows, binary_data=binary)
    return found(client.infer(model, inputs, outputs=outputs))


def http_aio(url: str, model: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    async def run() -> Any:
        async with tritonclient.http.aio.InferenceServerClient(url) as client:
            return await client.infer(model, inputs_of(tritonclient.http.aio, rows))

    return found(asyncio.run(run()))


def grpc(url: str, model: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    with tritonclient.grpc.InferenceServerClient(url) as client:
        return found(client.infer(model, inputs_of(tritonclient.grpc, rows)))


def grpc_aio(url: str, model: str, rows: list[dict[str, str]]) -> dict[str, Any]:
    async def run() -> Any:
        async with tritonclient.grpc.aio.InferenceServerClient(url) as client:
            return await client.infer(model, inputs_of(tritonclient.grpc.aio, rows))

    return found(asyncio.run(run()))


def about(http_url: str, grpc_url: str, model: str) -> list[Any]:
    """What each door says of the server and the model."""
    http = tritonclient.http.InferenceServerClient(http_url)
    with tritonclient.grpc.InferenceServerClient(grpc_url) as grpc:
        return [
            [client.is_server_live(), client.is_server_ready(), client.is_model_ready(model)] for client in (http, grpc)
        ] + [http.get_model_metadata(model), grpc.get_model_metadata(model, as_json=True)]


answer_calls({"http": http, "http_aio": http_aio, "grpc": grpc, "grpc_aio": grpc_aio, "about": about})
