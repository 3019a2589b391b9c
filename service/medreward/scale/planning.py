"""How many servers a demand needs: the fewest with which a simulated peak keeps its p99."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from medreward.errors import ConfigurationError
from medreward.scale.costs import Costs
from medreward.scale.simulation import Outcome, Simulation
from medreward.scale.traffic import DAY_S, Ask, Size, screening, together, training
from medreward.types import Lane

GROUPS: Final = 3_000  # that a simulated peak has at the least
STEPS: Final = 4  # of a trainer, at the least
MOST_SERVERS: Final = 2_000
ROOM: Final = 0.85  # of a device's memory that weights may take; the rest is for what a batch needs, and for caches
BUSIEST: Final = 0.95  # the share of a peak in which a device may be at work
NOON_S: Final = DAY_S / 2


@dataclass(frozen=True, slots=True)
class Demand:
    """What a day brings. `peak` is how much busier the busiest hour of training is than the mean of the day."""

    triples_per_day: float
    group: int = 8
    burst: int = 256
    images: int = 20_000
    peak: float = 2.0
    screens_per_day: float = 0.0
    size: Size = field(default_factory=Size)

    @property
    def groups_per_second(self) -> float:
        """The groups of trainers in the peak."""
        return self.triples_per_day / self.group / DAY_S * self.peak

    def asks(self) -> Sequence[Ask]:
        """Returns the peak of a day, at noon."""
        seconds = max(GROUPS, STEPS * self.burst) / self.groups_per_second
        trained = training(self.groups_per_second, self.burst, self.group, self.size, self.images, seconds)
        return [*together(trained, screening(self.screens_per_day, self.size, seconds, NOON_S))]


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demand needs. Times are of the simulated peak, in seconds, with all servers but the spare ones."""

    device: str
    kind: str
    source: str
    servers: int
    spare: int
    devices_per_server: int
    p99_s: float | None
    screen_p99_s: float | None
    busy: float
    cache_hit_rate: float
    triples_per_second: float
    weights_gib: float
    free_gib: float
    device_hours_per_day: float
    cost_per_day: float | None


def plan(
    asks: Sequence[Ask], costs: Costs, p99: float, screen_p99: float, spare: int = 1, price: float | None = None
) -> Plan:
    """Returns the fewest servers that answer 99 in 100 groups of trainers within `p99` seconds, and 99 in 100
    screenings within `screen_p99`, plus the spare ones. `asks` are those of a peak; `price` is a device's for an hour.

    Raises ConfigurationError where no number of servers does.
    """
    bounds = {Lane.BULK: p99, Lane.INTERACTIVE: screen_p99}
    devices = max(1, math.ceil(costs.weights_gib / (ROOM * costs.memory_gib)))
    for lane, bound in bounds.items():
        alone = max((_alone(ask, costs) for ask in asks if ask.lane is lane), default=0.0)
        if alone > bound:
            raise ConfigurationError(
                f"a p99 of {bound:g} s cannot be met: the largest group takes {alone:.2f} s by itself on {costs.name}"
            )
    seconds = max(1.0, asks[-1].at - asks[0].at)

    def peak(servers: int) -> Outcome:
        return Simulation(costs.device, servers).run(asks)

    def is_enough(servers: int) -> bool:
        outcome = peak(servers)
        is_in_time = all((outcome.p99(lane) or 0.0) <= bound for lane, bound in bounds.items())
        # A backlog may be in time in these minutes, and would not be after an hour of them.
        return is_in_time and outcome.busy_s <= BUSIEST * servers * seconds

    servers = _fewest(is_enough, 1)
    outcome = peak(servers)
    all_servers = servers + spare
    hours = all_servers * devices * 24.0
    return Plan(
        device=costs.name,
        kind=costs.kind,
        source=costs.source,
        servers=all_servers,
        spare=spare,
        devices_per_server=devices,
        p99_s=outcome.p99(Lane.BULK),
        screen_p99_s=outcome.p99(Lane.INTERACTIVE),
        busy=outcome.busy_s / (servers * seconds),
        cache_hit_rate=outcome.hit_rate,
        triples_per_second=outcome.triples_per_second,
        weights_gib=costs.weights_gib / devices,
        free_gib=costs.memory_gib - costs.weights_gib / devices,
        device_hours_per_day=hours,
        cost_per_day=None if price is None else hours * price,
    )


def _tokens(ask: Ask) -> int:
    return ask.image_tokens + ask.question_tokens + ask.responses * ask.answer_tokens


def _alone(ask: Ask, costs: Costs) -> float:
    batches = math.ceil(_tokens(ask) / costs.device.batch_cost)
    return batches * costs.device.fixed_s + _tokens(ask) * costs.device.per_token_s


def _fewest(is_enough: Callable[[int], bool], least: int) -> int:
    """Returns the smallest number that is enough, by doubling and halving; raises ConfigurationError if none is."""
    low, high = least - 1, least
    while not is_enough(high):
        low, high = high, high * 2
        if high > MOST_SERVERS:
            raise ConfigurationError(f"{MOST_SERVERS} servers are not enough: raise the p99, or send smaller bursts")
    while high - low > 1:
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle
    return high
