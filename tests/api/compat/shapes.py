"""One triple in every shape that a trainer sends, and the reward in each reply."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx

from medreward.proto import inference_pb2 as pb
from medreward.proto import inference_pb2_grpc
from serving import Server

Body = dict[str, Any]

OPENED: Final = (
    "<|im_start|>system\nYou are a radiologist.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
CLOSED: Final = "<|im_end|>\n"


def chatml(question: str, image: bool = False) -> str:
    return OPENED.format(("<|vision_start|><|image_pad|><|vision_end|>" if image else "") + question)


def get_reward(question: str, response: str, image: str | None = None) -> Body:
    prompt = chatml(question, bool(image))
    return {"query": [prompt + response + CLOSED], "prompts": [prompt], "labels": [image]}


def rm(question: str, response: str, image: str | None = None) -> Body:
    return {"prompt": chatml(question, bool(image)), "response": response, "label": image}


def rm_messages(question: str, response: str, image: str | None = None) -> Body:
    return {"prompt": [{"role": "user", "content": question}], "response": response, "label": image}


def evaluation(question: str, response: str, image: None = None) -> Body:
    return {"model": "model", "messages": [chatml(question) + response + CLOSED]}


def classify_text(question: str, response: str, image: None = None) -> Body:
    return {"model": "rm", "input": chatml(question) + response + CLOSED, "use_activation": False}


def parts(question: str, image: str | None, text: str, shown: Callable[[str], Body]) -> list[Body]:
    return [*([shown(image)] if image else []), {"type": text, "text": question}]


def classify_chat(question: str, response: str, image: str | None = None) -> Body:
    content = parts(question, image, "text", lambda url: {"type": "image_url", "image_url": {"url": url}})
    return {
        "model": "rm",
        "messages": [{"role": "user", "content": content}, {"role": "assistant", "content": response}],
    }


def verify(question: str, response: str, image: str | None = None) -> Body:
    content = parts(question, image, "input_text", lambda url: {"type": "input_image", "image_url": url})
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": response}]}
    return {
        "responses_create_params": {"input": [{"role": "user", "content": content}]},
        "response": {"id": "resp_1", "output": [{"type": "reasoning", "summary": []}, said]},
    }


def submit(question: str, response: str, image: str | None = None) -> Body:
    about = {"image": image, "question": question, "ground_truth": "no"} if image else {"ground_truth": "no"}
    return {"prompt": chatml(question, bool(image)), "response": response, "reward_info": about, "timeout": 300}


def infer(question: str, response: str, image: str | None = None) -> Body:
    texts = {"image": image or "", "question": question, "response": response}
    return {
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [1], "data": [text]} for name, text in texts.items()]
    }


#: Routes whose shape has room for an image, by what makes their body, and where the reward is in the reply.
WITH_IMAGE: Final[dict[str, tuple[str, Callable[..., Body], Callable[[Any], Any]]]] = {
    "OpenRLHF": ("/get_reward", get_reward, lambda reply: reply["rewards"][0]),
    "slime": ("/rm", rm, lambda reply: reply["reward"]),
    "slime, messages": ("/rm", rm_messages, lambda reply: reply["reward"]),
    "vLLM, chat": ("/classify", classify_chat, lambda reply: reply["data"][-1]["probs"][-1]),
    "NeMo Gym": ("/verify", verify, lambda reply: reply["reward"]),
    "OIP": ("/v2/models/{}/infer", infer, lambda reply: reply["outputs"][2]["data"][0]),
}
TEXT_ONLY: Final[dict[str, tuple[str, Callable[..., Body], Callable[[Any], Any]]]] = {
    "LLaMA-Factory": ("/v1/score/evaluation", evaluation, lambda reply: reply["scores"][0]),
    "vLLM, text": ("/classify", classify_text, lambda reply: reply["data"][-1]["probs"][-1]),
}
ROUTES: Final = WITH_IMAGE | TEXT_ONLY

Ask = Callable[..., Awaitable[httpx.Response]]


async def ask(
    server: Server, name: str, question: str, response: str, image: str | None = None, **url: str
) -> httpx.Response:
    path, body, _ = ROUTES[name]
    path = path.format(server.engine.serving.ref.name)
    return await server.rest.post(path, json=body(question, response, image), params=url)


async def reward(server: Server, name: str, question: str, response: str, image: str | None = None, **url: str) -> Any:
    reply = await ask(server, name, question, response, image, **url)
    assert reply.status_code == 200, reply.text
    return ROUTES[name][2](reply.json())


async def roll(server: Server, body: Body, path: str = "/roll/submit") -> httpx.Response:
    """The result of a sample, as ROLL asks for it: until it is there."""
    submitted = await server.rest.post(path, json=body)
    assert submitted.status_code == 200, submitted.text
    asked = {"reward_request_id": submitted.json()["reward_request_id"]}
    while True:
        result = await server.rest.request("GET", "/roll/result", json=asked)
        if result.status_code != 200 or result.json()["errcode"] == 0:
            return result
        await asyncio.sleep(0.01)


def tensor(name: str, elements: list[bytes]) -> Any:
    contents = pb.InferTensorContents(bytes_contents=elements)
    return pb.ModelInferRequest.InferInputTensor(name=name, datatype="BYTES", shape=[len(elements)], contents=contents)


def infer_message(model: str, images: list[bytes], questions: list[str], responses: list[str]) -> pb.ModelInferRequest:
    texts = {"question": questions, "response": responses}
    tensors = [tensor(name, [text.encode() for text in column]) for name, column in texts.items()]
    return pb.ModelInferRequest(model_name=model, inputs=[tensor("image", images), *tensors])


def inference(server: Server) -> Any:
    stub: Any = inference_pb2_grpc.GRPCInferenceServiceStub
    return stub(server.channel)


def binary(body: Body, columns: dict[str, list[bytes]], **parameters: Any) -> tuple[bytes, dict[str, str]]:
    """A request with these inputs as bytes behind its JSON, and its headers."""
    tail, inputs = b"", []
    for name, elements in columns.items():
        raw = b"".join(len(element).to_bytes(4, "little") + element for element in elements)
        tail += raw
        size = {"binary_data_size": len(raw)}
        inputs.append({"name": name, "datatype": "BYTES", "shape": [len(elements)], "parameters": size})
    head = json.dumps({**body, "inputs": inputs, "parameters": parameters}).encode()
    return head + tail, {"Inference-Header-Content-Length": str(len(head))}
