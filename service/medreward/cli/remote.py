"""A server's score route over HTTP, as little as these commands need of it."""

from typing import Any, Final

import httpx

from medreward.cli.scorer import UnreachableError
from medreward.errors import Code, RequestError

TIMEOUT: Final = httpx.Timeout(150, connect=5)  # a server may take its deadline, and that long again to read a body


class Remote:
    def __init__(self, url: str, key: str | None = None, connections: int = 1) -> None:
        self._url = url
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._client = httpx.AsyncClient(
                base_url=url, headers=headers, timeout=TIMEOUT, limits=httpx.Limits(max_connections=connections)
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise UnreachableError(f"{url} is no URL: {error}") from None

    async def aclose(self) -> None:
        await self._client.aclose()

    async def model(self) -> dict[str, str]:
        """The model that answers; from here on the server is asked for no other one."""
        about = await self._call("GET", "/v1/model")
        self._client.headers["X-Model-Fingerprint"] = about["fingerprint"]
        return {key: about[key] for key in ("name", "version", "fingerprint", "runtime", "evidence")}

    async def score(self, body: bytes) -> dict[str, Any]:
        return await self._call("POST", "/v1/score", content=body, headers={"Content-Type": "application/json"})

    async def _call(self, method: str, path: str, **how: Any) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, **how)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise UnreachableError(f"cannot reach {self._url}: {str(error) or type(error).__name__}") from None
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or (response.is_error and "code" not in answer):
            raise UnreachableError(f"{self._url}{path} does not answer as MedReward does (HTTP {response.status_code})")
        if response.is_error:
            raise _refusal(answer, response.headers.get("Retry-After", ""))
        return answer


def _refusal(problem: dict[str, Any], retry_after: str) -> RequestError:
    code = Code(problem["code"]) if problem["code"] in set(Code) else Code.INTERNAL
    seconds = float(retry_after) if retry_after.isdigit() else None
    return RequestError(code, str(problem.get("detail") or code), str(problem.get("field") or ""), seconds)
