"""Every setting of a server: at once a flag of `medreward serve`, an environment variable and a line of help."""

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, StringConstraints
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from medreward.encoding import sentences
from medreward.encoding.thinking import Pair, ThinkingTags

MIB: Final = 1024 * 1024
ENV_PREFIX: Final = "MEDREWARD_"

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
LABEL: Final = "[A-Za-z0-9-]{1,63}"
HostName = Annotated[str, StringConstraints(strip_whitespace=True, pattern=rf"^{LABEL}(\.{LABEL})*(:[0-9]{{1,5}})?$")]


RequestIds = Literal["keep", "hash", "uuid-only"]
HostNames = Annotated[
    tuple[HostName, ...],
    NoDecode,
    BeforeValidator(lambda names: [n for n in names.split(",") if n.strip()] if isinstance(names, str) else names),
]


def _pairs(value: object) -> object:
    """Returns the pairs of tags that a text names, as `OPEN CLOSE, OPEN CLOSE`; what is no text stays as it is."""
    if not isinstance(value, str):
        return value
    pairs = [pair.split() for pair in value.split(",") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("write each pair as OPEN CLOSE with a space between, and a comma between pairs")
    return pairs


def _are_new(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Returns the pairs; raises ValueError for one that is there twice or is known anyway."""
    ThinkingTags(pairs)
    return pairs


TagPairs = Annotated[tuple[Pair, ...], NoDecode, BeforeValidator(_pairs), AfterValidator(_are_new)]


class Settings(BaseSettings):
    """The settings of one server, resolved before it starts. An unknown name is an error."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    model: str = Field(
        "medreward-mini", description="model to serve: a bundled name, a directory, or org/name@revision"
    )
    models_dir: Path | None = Field(None, description="folder of models; by default the one of the bundled model")
    heads: Literal["auto", "verbaliser"] = Field(
        "auto", description="without model.toml: auto, the head that is there, or verbaliser; see docs/vlm.md"
    )
    image_size: PositiveInt | None = Field(
        None, description="without model.toml: side of the square that every image is brought to"
    )
    require_evidence: str | None = Field(
        None, description="serve only a model that this gate policy promoted: its name or file; see docs/gate.md"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto, cpu or cuda")
    dtype: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of a VLM: fp32 or bf16; auto: bf16 on cuda, fp32 on cpu"
    )
    backend: Literal["auto", "vllm"] = Field(
        "auto",
        description="auto: the model's own; vllm: VLMs run in vLLM, which --worker-python has; see docs/vlm.md",
    )
    worker_python: Path | None = Field(
        None, description="interpreter that runs the workers, with an environment of its own; by default ours"
    )
    threads: int = Field(0, ge=0, description="inference threads; 0: one a core")
    deterministic: bool = Field(
        False, description="VLMs: a triple gets the same bits whatever runs beside it, but later; see docs/vlm.md"
    )

    policies: Path | None = Field(
        None, description="folder of screening policies; by default the model's own; see docs/screening.md"
    )
    default_policy: str | None = Field(None, description="policy of a screening request that names none")
    audit: Path | None = Field(None, description="file of the audit log, to which every decision is appended")
    audit_key_file: Path | None = Field(
        None, description="file of the key of its digests, made where it is missing; by default FILE.key beside FILE"
    )
    audit_full: Literal["refuse", "count"] = Field(
        "refuse", description="where the audit log cannot be written: refuse decisions, or answer and count the loss"
    )
    audit_bytes: PositiveInt = Field(
        64 * MIB, description="size from which the audit log is renamed and goes on in a new file"
    )
    audit_fsync: Literal["on", "off"] = Field(
        "on", description="off: an answered decision outlasts a crash of the server, and not one of the machine"
    )

    drift: Literal["on", "off"] = Field(
        "on", description="watch whether screened answers are still like those before: on or off; see docs/drift.md"
    )
    drift_reference: Path | None = Field(
        None, description="audit log or scored file of what is normal; by default the first decisions are"
    )
    drift_window: int = Field(1000, ge=200, description="how many first decisions are normal, without a reference")
    drift_mix: int = Field(
        0, ge=0, description="answers that are shuffled before they are tested, so that a daily rhythm is no change"
    )
    drift_false_alarms: float = Field(
        0.01, gt=0, lt=1, description="share of runs that may raise a false alarm, however long they are"
    )

    shadow_policy: str | None = Field(
        None, description="policy that decides a second time, NAME or NAME/VERSION; see docs/shadow.md"
    )
    shadow_url: str | None = Field(
        None, description="server that decides a second time: images and texts are sent there; see docs/shadow.md"
    )
    shadow_key_file: Path | None = Field(None, description="file of the key for that server")
    shadow_share: float = Field(0.1, gt=0, le=1, description="share of decisions that are made a second time")
    shadow_until: str | None = Field(
        None, description="end of the shadow, which it needs: a date (2027-01-31, UTC) or a number of decisions"
    )
    shadow_file: Path | None = Field(None, description="file that gets a line for each answer decided twice")

    host: str = Field("127.0.0.1", description="address of the REST and gRPC ports")
    port: Port = Field(8000, description="REST port; 0: any free one")
    grpc_port: Port = Field(8001, description="gRPC port; 0: any free one")
    admin_host: str = Field("127.0.0.1", description="address of the admin port")
    admin_port: Port = Field(8002, description="admin port; 0: any free one")

    keys_file: Path | None = Field(
        None, description="file of API keys; without it the server listens on loopback alone"
    )
    insecure: bool = Field(False, description="listen beyond loopback without keys")
    allowed_hosts: str = Field(
        "", description="host names to answer to, separated by commas; *: any; see docs/access.md"
    )
    tls_cert: Path | None = Field(None, description="certificate chain of all three ports, PEM")
    tls_key: Path | None = Field(None, description="private key of the certificate, PEM")
    tls_client_ca: Path | None = Field(
        None, description="authorities of clients' certificates, PEM; with it every client must show one"
    )

    body_bytes: PositiveInt = Field(32 * MIB, description="largest request body, REST and gRPC")
    body_seconds: Seconds = Field(30, description="longest time a body may take to arrive")
    bodies_bytes: PositiveInt = Field(
        512 * MIB, description="bytes of all requests in memory together; more is refused"
    )
    json_values: PositiveInt = Field(32_768, description="most values in a request: in JSON, or fields of a message")
    json_depth: PositiveInt = Field(32, description="most levels of nesting in a JSON body")
    header_bytes: PositiveInt = Field(32_768, description="most bytes in a request's headers or metadata")
    headers: PositiveInt = Field(100, description="most headers in a request")
    header_seconds: Seconds = Field(10, description="longest time a connection may take to send a request's headers")
    keep_alive_seconds: Seconds = Field(75, description="longest time a connection may stay open between two requests")
    connections: PositiveInt = Field(4096, description="most REST connections that wait for a request")
    grpc_calls: PositiveInt = Field(4096, description="most gRPC calls under way")
    items: PositiveInt = Field(64, description="most items in a request")
    responses: PositiveInt = Field(256, description="most responses in an item")
    item_images: PositiveInt = Field(16, description="most images in an item, for models that read several")
    item_pixels: PositiveInt = Field(160_000_000, description="most pixels of all images of an item together")
    item_turns: PositiveInt = Field(64, description="most turns before a question, for models that read turns")
    unread_history: Literal["refuse", "ignore"] = Field(
        "refuse", description="turns for a model that reads none: refuse them, or ignore them and say so by a flag"
    )
    text_chars: PositiveInt = Field(200_000, description="most characters in one text")
    explain_sentences: PositiveInt = Field(
        sentences.MOST, description="most sentences of a response that are explained one by one; see docs/explain.md"
    )
    response_steps: PositiveInt = Field(
        sentences.MOST_STEPS, description="most steps of a response that are scored; see docs/steps.md"
    )
    image_bytes: PositiveInt = Field(20 * MIB, description="largest image file")
    image_pixels: PositiveInt = Field(40_000_000, description="most pixels in an image")
    image_side: PositiveInt = Field(16_384, description="longest side of an image, in pixels")
    image_min_side: PositiveInt = Field(8, description="shortest side of an image, in pixels")
    image_aspect: PositiveInt = Field(32, description="longest side over shortest side, at most")

    image_root: Path | None = Field(
        None, description="folder whose images trainers may name by path; see docs/trainers/wire.md"
    )

    thinking_tags: TagPairs = Field(
        (), description="more tags of thoughts, as '<plan> </plan>, [THINK] [/THINK]'; see docs/text.md"
    )

    image_url_hosts: HostNames = Field((), description="hosts (name or name:port, commas) images are fetched from")
    image_url_ca: Path | None = Field(
        None, description="file of certificate authorities trusted beside the public ones"
    )
    image_url_private: bool = Field(False, description="fetch from these hosts in private networks too")
    image_url_seconds: Seconds = Field(5, description="longest time an image may take to fetch")

    deadline_seconds: Seconds = Field(60, description="deadline of a request that names none, and the longest one")
    drain_seconds: Seconds = Field(30, description="time accepted work has to finish after SIGTERM")
    queue_cost: PositiveInt = Field(
        4_000_000, description="cost (tokens) that may be waiting or running; more is refused"
    )
    queue_pixels: PositiveInt = Field(
        1_000_000_000, description="pixels of images that may wait for a decoder or be in one"
    )
    batch_cost: PositiveInt = Field(16_384, description="cost (tokens) of one batch, padding included")

    swap_keep_seconds: float = Field(
        600, ge=0, description="time the model before a swap stays loaded, for a rollback at once"
    )
    swap_grace_seconds: float = Field(
        0, ge=0, description="time after a swap in which the model before still answers requests pinned to it"
    )
    wake_on_demand: bool = Field(
        False, description="wake for a request that finds the server asleep; without it the request is refused"
    )

    bulk_batch_ms: float = Field(
        100, gt=0, description="longest time of a bulk batch while interactive answers come, for they wait for it"
    )

    isolation: Literal["process", "inline"] = Field("process", description="where models run and images are decoded")
    workers: PositiveInt = Field(1, description="worker processes, one a device")
    tensor_parallel: PositiveInt = Field(1, description="devices that one worker's model is spread over, for VLMs")
    load_seconds: Seconds = Field(600, description="time a worker may take to load its model")
    hang_seconds: Seconds = Field(2, description="silence after which a worker is taken for hung and replaced")
    batch_seconds: Seconds = Field(60, description="time a batch may take before its worker is replaced")
    probe_seconds: Seconds = Field(5, description="how often an idle worker gets a test triple")

    decoders: int = Field(0, ge=0, description="image decoders; 0: one a core")
    decode_seconds: Seconds = Field(10, description="time an image may take to decode")
    pixel_cache_bytes: int = Field(256 * MIB, ge=0, description="decoded images kept in memory")
    feature_cache_bytes: int = Field(256 * MIB, ge=0, description="image features kept beside the device")
    prefix_cache_bytes: int = Field(
        1024 * MIB, ge=0, description="states of images with their questions kept on the device, for VLMs"
    )
    score_cache_bytes: int = Field(64 * MIB, ge=0, description="scores kept for triples that come again")
    image_store_bytes: int = Field(512 * MIB, ge=0, description="images kept for scoring by hash")
    image_store_seconds: Seconds = Field(3600, description="time a stored image is kept")

    fake_delay_ms: float = Field(0, ge=0, description="time the fake backend takes for a batch")
    request_ids: RequestIds = Field(
        "keep", description="callers' request ids that are no UUIDs: keep, hash, or uuid-only; see docs/operating.md"
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="debug, info, warning or error")
