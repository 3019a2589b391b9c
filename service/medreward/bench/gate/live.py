"""Checks of the endpoints themselves: do they serve what was measured, withstand bad input, and answer in time?"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from medreward.artifacts.golden import GoldenTriple
from medreward.bench.cases import Case
from medreward.bench.finished import FinishedRun
from medreward.bench.gate.checks import Check
from medreward.bench.gate.load import load_checks
from medreward.bench.gate.parity import TIMEOUT_S, golden_parity, run_parity
from medreward.bench.gate.policy import Policy
from medreward.bench.gate.smoke import smoke
from medreward.bench.sources import open_set
from medreward.clients import AsyncClient, ClientError, Patience, Tls
from medreward.errors import ConfigurationError
from medreward.types import ModelRef

CONNECTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Served:
    """Where a run's model is served."""

    url: str
    key: str | None
    tls: Tls | None
    run: FinishedRun

    def client(self) -> AsyncClient:
        """Returns a client without retries: what the endpoint does at the first try is what is measured."""
        try:
            return AsyncClient(
                self.url,
                key=self.key,
                tls=self.tls,
                timeout=TIMEOUT_S,
                patience=Patience(0),
                concurrency=CONNECTIONS,
            )
        except ValueError as error:
            raise ConfigurationError(str(error)) from None


async def live(
    policy: Policy, candidate: Served, baseline: Served | None, golden: Sequence[GoldenTriple]
) -> AsyncIterator[Check]:
    """Gives the checks that the policy wants of the endpoints.

    Raises ConfigurationError where one cannot be reached or serves another model.
    """
    cases = await asyncio.to_thread(cases_of, candidate.run)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(candidate.client())
        against = await stack.enter_async_context(baseline.client()) if baseline else None
        runtime = (await pin(client, candidate)).runtime
        if against and baseline:
            await pin(against, baseline)
        if policy.parity:
            if golden:
                yield await golden_parity(policy.parity.tolerance, client, runtime, golden)
            yield await run_parity(policy.parity, client, runtime, candidate.run, cases)
        if policy.smoke:
            for check in await smoke(client, candidate.url, candidate.key, candidate.tls):
                yield check
        if policy.load:
            async for check in load_checks(policy.load, policy.alpha, client, against, cases):
                yield check


def cases_of(run: FinishedRun) -> list[Case]:
    """Returns the run's cases with their texts and images, which a run does not keep.

    Raises ConfigurationError where the data is no longer what the run is on.
    """
    ref = str(run.about["data"])
    by_key = {case.key: case for case in open_set(ref).cases}
    cases = [case for row in run.cases if (case := by_key.get(row.key))]
    rows = [(hashlib.sha256(case.image).hexdigest(), *map(len, case.answers)) for case in cases]
    if rows != [(row.image, *row.lengths) for row in run.cases]:
        raise ConfigurationError(f"{ref} is no longer the set that {run.path} is a run on")
    return cases


async def pin(client: AsyncClient, served: Served) -> ModelRef:
    """Returns the model that is served, and holds the client to it; raises ConfigurationError if it is another one."""
    try:
        model = await client.pin_model()
    except ClientError as error:
        raise ConfigurationError(f"{served.url}: {error}") from None
    if model.fingerprint != (measured := served.run.model.get("fingerprint")):
        raise ConfigurationError(
            f"{served.url} serves {model.fingerprint}, but {served.run.path} is a run of {measured}"
        )
    return model
