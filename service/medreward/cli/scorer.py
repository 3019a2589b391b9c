"""What answers a request: a model in this process, or a server. Both take and give the JSON of `/v1/score`."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Protocol

from medreward.errors import ConfigurationError


class UnreachableError(ConfigurationError):
    """No answer of a server came back; the message says why in one line."""


class Scorer(Protocol):
    async def model(self) -> dict[str, str]:
        """The model that answers; it stays the same one."""

    async def score(self, body: bytes) -> dict[str, Any]:
        """The reply, or a MedRewardError for a refused request, or UnreachableError."""


@asynccontextmanager
async def open_scorer(
    url: str | None, key: str | None, local: dict[str, Any], connections: int = 1
) -> AsyncIterator[Scorer]:
    if url:
        from medreward.cli.remote import Remote

        async with aclosing(Remote(url, key, connections)) as remote:
            yield remote
        return
    from medreward.cli.local import Local
    from medreward.cli.serve import read_settings

    async with aclosing(await Local.started(read_settings(**local))) as here:
        yield here
