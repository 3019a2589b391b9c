"""One question to an OpenAI-compatible chat endpoint: with retries, and with structured output where it is had."""

import asyncio
import email.utils
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from medreward.bench.chooser import StoppedError
from medreward.clients.rest import RETRYABLE_STATUS
from medreward.clients.retries import Attempts, Patience, RetryBudget
from medreward.clients.tracing import trace_headers

#: A judge may think for minutes.
TIMEOUT: Final = httpx.Timeout(600, connect=10)
#: Wrong for every question alike: key, address, name of the model.
SETUP_STATUS: Final = frozenset({401, 402, 403, 404, 405})


@dataclass(frozen=True, slots=True)
class ChatReply:
    """One text of the endpoint. `text` is None where it refused this question; `error` says how."""

    text: str | None
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chat:
    def __init__(self, base_url: str, key: str | None, connections: int, retry_seconds: float) -> None:
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._budget = RetryBudget(Patience(retry_seconds))
        self._structured = True  # until a server refuses it
        self._reached = False  # a wrong URL shows at once
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._client = httpx.AsyncClient(headers=headers, timeout=TIMEOUT, limits=limits)

    async def ask(self, body: Mapping[str, Any], response_format: Mapping[str, Any]) -> ChatReply:
        """Returns the endpoint's reply; raises StoppedError where it is away or would refuse every question.

        A server that answers 400 with the format and 200 without it has no structured output: it is not asked for it
        again.
        """
        if self._structured:
            reply = await self._with_retries({**body, "response_format": response_format})
            if reply.error not in ("http_400", "http_422"):
                return reply
        reply = await self._with_retries(body)
        if reply.error is None:
            self._structured = False
        return reply

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _with_retries(self, body: Mapping[str, Any]) -> ChatReply:
        attempts = Attempts(self._budget)
        while True:
            retry_after = None
            try:
                response = await self._client.post(self._url, json=body, headers=trace_headers())
            except httpx.InvalidURL as error:
                raise StoppedError(f"{self._url} is no URL: {error}") from None
            except httpx.UnsupportedProtocol:
                raise StoppedError(f"{self._url} must begin with http:// or https://") from None
            except httpx.RequestError as error:
                trouble = f"cannot reach {self._url}: {str(error) or type(error).__name__}"
                if not self._reached:
                    raise StoppedError(trouble) from None
            else:
                self._reached = True
                if response.status_code not in RETRYABLE_STATUS:
                    return _read_reply(self._url, response)
                trouble = f"{self._url} answers {response.status_code}"
                retry_after = _seconds_of(response.headers.get("retry-after", ""))
            pause = attempts.pause(retry_after)
            if pause is None:
                raise StoppedError(trouble)
            await asyncio.sleep(pause)


def _read_reply(url: str, response: httpx.Response) -> ChatReply:
    """Returns the reply in a response; raises StoppedError where every question would be answered like this."""
    if response.status_code in SETUP_STATUS:
        reason = " ".join(response.text.split())[:200] or response.reason_phrase
        raise StoppedError(f"{url} answers {response.status_code}: {reason}")
    if response.is_error:
        return ChatReply(None, f"http_{response.status_code}")
    try:
        body = response.json()
        text = body["choices"][0]["message"].get("content")
        usage = body.get("usage") or {}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise StoppedError(f"{url} does not answer as a chat endpoint does") from None
    tokens = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return ChatReply(text if isinstance(text, str) else "", None, *tokens)


def _seconds_of(retry_after: str) -> float | None:
    """Returns how long the header says to wait, be it in seconds or as a date; None where it says nothing."""
    if retry_after.replace(".", "", 1).isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
