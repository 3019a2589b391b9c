"""The flags of a request, which `score` and `score-file` share."""

import math
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, cast

import click
from click.core import ParameterSource

from medreward.cli.options import F, local_options, nearest, option
from medreward.clients import Tls
from medreward.types import DIMENSIONS, Steps, Thinking, TooLong


class WholeText(click.types.StringParamType):
    """A repeatable text; from a variable it is one text, which click would split into words."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        return [rv]


def read_weights(context: click.Context, flag: click.Parameter, text: str | None) -> dict[str, float] | None:
    """Returns the weights that `accuracy=2,overall=1` names; raises BadParameter where it is not written so."""
    if text is None:
        return None
    weights: dict[str, float] = {}
    for pair in text.split(","):
        dimension, _, number = pair.strip().partition("=")
        if dimension not in DIMENSIONS:
            raise click.BadParameter(f"no dimension {dimension!r}{nearest(dimension, DIMENSIONS)}")
        if dimension in weights:
            raise click.BadParameter(f"{dimension} is given twice")
        try:
            weights[dimension] = float(number)
        except ValueError:
            weights[dimension] = math.nan
        if not math.isfinite(weights[dimension]):
            raise click.BadParameter(f"{dimension} needs a number, as in {dimension}=1.5")
    return weights


def read_url(context: click.Context, flag: click.Parameter, url: str | None) -> str | None:
    """Returns the URL, or several with commas between them, without slashes at their ends; raises BadParameter where no
    client of ours speaks a scheme.
    """
    urls = [each.strip().rstrip("/") for each in url.split(",")] if url else []
    for each in urls:
        if not each.startswith(("http://", "https://", "grpc://", "grpcs://")):
            raise click.BadParameter(f"{each!r} must begin with http://, https://, grpc:// or grpcs://")
    return ",".join(urls) or None


def url_option(read: Callable[[click.Context, click.Parameter, str | None], str | None]) -> Callable[[F], F]:
    metavar = "URL,…" if read is read_url else "URL"
    return option("--url", callback=read, metavar=metavar, help="server to ask, instead of scoring in this process")


key_option = option("--key", help="API key of the server to ask")
client_cert_option = option(
    "--client-cert",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="certificate to show a server that asks for one, PEM",
)
client_key_option = option(
    "--client-key", type=click.Path(path_type=Path), metavar="FILE", help="private key of that certificate, PEM"
)


def read_tls(cert: Path | None, key: Path | None) -> Tls | None:
    """Returns the certificate that is shown to servers; raises UsageError where its files cannot be used."""
    if cert is None and key is None:
        return None
    if cert is None or key is None:
        raise click.UsageError("--client-cert and --client-key need each other")
    tls = Tls(cert=cert, key=key)
    try:
        tls.context()
    except OSError as error:
        why = error.strerror or error
        raise click.UsageError(f"--client-cert {cert} and --client-key {key} cannot be used: {why}") from None
    return tls


def caller_options(command: F) -> F:
    """Adds the flags that say who asks: `key`, and a certificate, which the command gets as `tls`."""

    @wraps(command)
    def with_tls(*args: Any, client_cert: Path | None, client_key: Path | None, **given: Any) -> Any:
        return command(*args, tls=read_tls(client_cert, client_key), **given)

    wrapped = cast(F, with_tls)
    for decorate in (client_key_option, client_cert_option, key_option):
        wrapped = decorate(wrapped)
    return wrapped


concurrency_option = option(
    "--concurrency", type=click.IntRange(1, 1024), default=16, show_default=True, help="rows or cases in flight"
)
retry_seconds_option = option(
    "--retry-seconds",
    type=click.FloatRange(0),
    default=120.0,
    show_default=True,
    help="longest time to try again while the server is overloaded or away",
)


def ray_options(command: F) -> F:
    """Adds the flags that say on which Ray cluster a file is scored, and by how many actors."""
    for decorate in (
        option(
            "--ray-batch-rows",
            type=click.IntRange(1),
            default=256,
            show_default=True,
            help="rows that an actor scores at a time, which is the most that each loses when it is killed",
        ),
        option(
            "--ray-actors",
            type=click.IntRange(1),
            help="most actors, each with a model of its own; by default as many as the cluster has room for",
        ),
        option(
            "--ray",
            metavar="ADDRESS",
            help="Ray cluster to score on: host:port, auto for the one of this machine, or local to start one here",
        ),
    ):
        command = decorate(command)
    return command


def where_options(command: F) -> F:
    """Adds the flags that say where scores come from: a server, or a model in this process."""
    for decorate in (local_options, caller_options, url_option(read_url)):
        command = decorate(command)
    return command


too_long_option = option(
    "--too-long",
    type=click.Choice([str(choice) for choice in TooLong]),
    default=str(TooLong.ERROR),
    show_default=True,
    help="for a response over the model's limit: an error, or cut its middle out, which may raise its reward",
)


def text_options(command: F) -> F:
    """Adds the flags that say what is done with a text."""
    for decorate in (
        option(
            "--thinking",
            type=click.Choice([str(Thinking.KEEP), str(Thinking.STRIP)]),
            default=str(Thinking.KEEP),
            show_default=True,
            help="strip: leave out what stands between <think> tags and their like in responses; see docs/text.md",
        ),
        too_long_option,
    ):
        command = decorate(command)
    return command


weights_option = option(
    "--weights",
    callback=read_weights,
    metavar="DIMENSION=WEIGHT,…",
    help="weights of the reward; a dimension not named weighs 0, without this flag the model's own count",
)


viewpoint_option = option(
    "--viewpoint",
    metavar="NAME",
    help="viewpoint of the model whose weights make the reward; GET /v1/model and `medreward models inspect` list them",
)


def asking_options(command: F) -> F:
    """Adds the flags of what a request says beside its items; the command fails where two of them say the weights."""

    @wraps(command)
    def with_one_weighting(*args: Any, weights: dict[str, float] | None, viewpoint: str | None, **given: Any) -> Any:
        if weights and viewpoint is not None:
            raise click.UsageError("--weights and --viewpoint exclude each other: a viewpoint is a set of weights")
        return command(*args, weights=weights, viewpoint=viewpoint, **given)

    wrapped = cast(F, with_one_weighting)
    for decorate in (
        option(
            "--steps",
            type=click.Choice([str(choice) for choice in Steps]),
            default=str(Steps.NONE),
            show_default=True,
            help="also score each response up to the end of each of these, as if it ended there; see docs/steps.md",
        ),
        option(
            "--thinking",
            type=click.Choice([str(choice) for choice in Thinking]),
            default=str(Thinking.KEEP),
            show_default=True,
            help="strip: leave out what stands between <think> tags and their like in responses; both: keep it, and "
            "also score without it; see docs/text.md",
        ),
        too_long_option,
        viewpoint_option,
        weights_option,
    ):
        wrapped = decorate(wrapped)
    return wrapped


def chosen_url(context: click.Context, url: str | None, model: str | None) -> str | None:
    """Returns the server to ask, None for the model in this process.

    A flag wins over what stands in the environment. Raises UsageError where flags exclude each other.
    """
    by_flag = {name for name in ("url", "model") if context.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if url and model and len(by_flag) == 2:
        raise click.UsageError("--url and --model exclude each other")
    chosen = None if "model" in by_flag else url
    if chosen and context.get_parameter_source("dtype") is ParameterSource.COMMANDLINE:
        raise click.UsageError("--url and --dtype exclude each other: a server has chosen its own")
    return chosen
