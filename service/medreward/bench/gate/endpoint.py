"""A served model, asked over REST without a client's retries: what it does at the first try is what is measured."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import httpx

from medreward.errors import ConfigurationError
from medreward.types import DIMENSIONS, Six

TIMEOUT: Final = 10.0  # a request that takes longer counts as failed
CONNECTIONS: Final = 256


class Endpoint:
    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
        )

    async def model(self) -> dict[str, Any]:
        try:
            reply = await self._client.get("/v1/model")
            model: dict[str, Any] = reply.raise_for_status().json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise ConfigurationError(f"{self.url}: {str(error) or type(error).__name__}") from None
        return model

    async def send(self, content: bytes, content_type: str = "application/json") -> httpx.Response | None:
        """None where no answer came."""
        try:
            async with asyncio.timeout(TIMEOUT):
                return await self._client.post("/score", content=content, headers={"Content-Type": content_type})
        except (httpx.RequestError, TimeoutError):
            return None

    async def logits(self, body: bytes, count: int) -> list[Six | None] | None:
        """Of each response, None where it was not scored; None as a whole where the answer is not a right one."""
        reply = await self.send(body)
        if reply is None or reply.status_code != httpx.codes.OK:
            return None
        try:
            results = reply.json()["results"]
            found = [_six(result["logits"]) for result in results]
        except (ValueError, LookupError, TypeError):
            return None
        return found if len(found) == count else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()


def request(
    image: bytes | None, question: str, responses: Sequence[str], options: Mapping[str, str] | None = None
) -> bytes:
    item: dict[str, Any] = {"question": question, "responses": list(responses)}
    if image is not None:
        item["image"] = {"base64": b64encode(image).decode()}
    return json.dumps({"items": [item]} | ({"options": dict(options)} if options else {})).encode()


def _six(logits: Mapping[str, float | None] | None) -> Six | None:
    numbers = [logits[dimension] for dimension in DIMENSIONS] if logits else None
    return tuple(None if number is None else float(number) for number in numbers) if numbers else None
