"""An OpenAI-compatible chat endpoint with structured output, on a real, tiny, random vision-language model.

It holds the model to the verdict's shape: of each letter it takes the one that the model finds likelier. (What
transformers' own server does not do.)
"""

import base64
import json
from io import BytesIO
from typing import Any

import torch
from fastapi import FastAPI
from PIL import Image

from tiny_vlm import tiny_model, tiny_processor

LETTERS = ("left", "right")  # words of its vocabulary, in the parts of A and B


class Judge:
    def __init__(self) -> None:
        self.processor = tiny_processor()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = tiny_model(self.processor.tokenizer).eval()

    def inputs(self, messages: list[dict[str, Any]], written: str = "") -> Any:
        """As the model's own template and processor make them of a chat."""
        images = [part for message in messages for part in message["content"] if part["type"] == "image_url"]
        pictures = [_picture(part["image_url"]["url"]) for part in images]
        turns = [{**message, "content": [_part(part) for part in message["content"]]} for message in messages]
        text = self.processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return self.processor(images=pictures, text=text + written, return_tensors="pt")

    @torch.no_grad()
    def verdict(self, messages: list[dict[str, Any]], shape: dict[str, Any]) -> tuple[str, int]:
        ids = self.processor.tokenizer.convert_tokens_to_ids([*LETTERS])
        letters: dict[str, str] = {}
        for name in shape["required"]:
            logits = self.model(**self.inputs(messages, f"{' '.join(letters)} {name}")).logits[0, -1]
            letters[name] = shape["properties"][name]["enum"][int(logits[ids].argmax())]
        return json.dumps(letters), len(letters)


def _part(part: dict[str, Any]) -> dict[str, Any]:
    return {"type": "image"} if part["type"] == "image_url" else part


def _picture(url: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(url.partition(";base64,")[2]))).convert("RGB")


def app(judge: Judge) -> FastAPI:
    api = FastAPI()

    @api.post("/v1/chat/completions")
    def chat(body: dict[str, Any]) -> dict[str, Any]:
        messages = body["messages"]
        text, count = judge.verdict(messages, body["response_format"]["json_schema"]["schema"])
        usage = {"prompt_tokens": judge.inputs(messages)["input_ids"].shape[1], "completion_tokens": count}
        message = {"role": "assistant", "content": text}
        return {"object": "chat.completion", "choices": [{"index": 0, "message": message}], "usage": usage}

    return api
