"""The JSON shapes of what the server is doing now: for the admin port and for the page's operator view."""

from pydantic import Field

from medreward.api.shape import Shape


class WorkerState(Shape):
    ready: bool
    pid: int | None = None
    device: int | None = None


class AuditState(Shape):
    file: str
    seq: int = Field(description="number of the last entry")
    hash: str = Field(description="of the last entry: keep it elsewhere, for `medreward audit verify --expect-last`")
    bytes: int = Field(description="size of the file: at audit_bytes it is renamed")
    waiting: int = Field(description="entries that wait for the disk")
    failing: bool = Field(description="whether the last entry could not be written")


class WatchState(Shape):
    """One thing that drift watches."""

    statistic: float = Field(description="how strong the evidence of a change is: 0 none, from 1 on an alarm")
    alarm: bool = Field(description="whether it raised an alarm since the last reset")
    change: str | None = Field(description="what has happened: lower, higher, narrower, wider, rarer, more often")
    reference: int = Field(description="answers that were learnt from as normal")
    missing: int = Field(description="answers that are still to be learnt from; 0 when it tests")
    tested: int


class ShadowState(Shape):
    of: str = Field(description="what decides a second time")
    share: float
    until: str
    ended: bool
    decisions: int = Field(description="decisions that it took")
    outcomes: dict[str, int] = Field(
        description="answers by the verdict served and the shadow's: allow_block and so on"
    )


class StateReply(Shape):
    """What the server is doing now."""

    ready: bool = Field(description="whether requests are taken, as /readyz says")
    reason: str | None = Field(description="why it is not ready: loading, draining, or what is wrong with its worker")
    requests_in_flight: int = Field(description="requests accepted and not yet answered; 0 ends a drain")
    cost_admitted: int = Field(description="of what may be queued and running: the limit is queue_cost")
    pixels_admitted: int = Field(description="of images that wait for a decoder: the limit is queue_pixels")
    triples_waiting: int
    triples_in_flight: int = Field(description="waiting or running; identical triples count once")
    request_bytes: int = Field(description="of all requests in memory: the limit is bodies_bytes")
    stored_bytes: int = Field(description="of images stored by hash: the limit is image_store_bytes")
    workers: list[WorkerState]
    audit: AuditState | None = Field(description="null without an audit log")
    drift: dict[str, WatchState] | None = Field(description="by what is watched; null where it is off")
    shadow: ShadowState | None


class SeriesShape(Shape):
    labels: dict[str, str]
    value: float


class NowReply(Shape):
    """What goes through the server now, for the page's operator view."""

    at: float = Field(description="when this was read, in seconds since 1970")
    version: str
    ready: bool = Field(description="whether requests are taken, as /readyz says")
    reason: str | None = Field(description="why it is not ready")
    metrics: dict[str, list[SeriesShape]] = Field(description="by the name of the metric: its series that are not 0")
