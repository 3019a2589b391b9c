"""The address that LLaMA-Factory asks for rewards; docs/trainers/llamafactory.md shows where it goes."""

from urllib.parse import quote, urlsplit, urlunsplit


def reward_model(server: str, *, key: str | None = None, on_error: float | None = None) -> str:
    """Returns what `reward_model:` takes, beside `reward_model_type: api`.

    The key travels as the password of the address. With a number as `on_error`, the server gives it to an answer that
    could not be scored, counts it and logs it; without, the run stops.
    """
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"the server {server!r} is not an address like http://host:8000")
    host = parts.netloc if key is None else f"x:{quote(key, safe='')}@{parts.netloc}"
    query = "" if on_error is None else f"on_error={on_error}"
    return urlunsplit((parts.scheme, host, f"{parts.path.rstrip('/')}/v1/score/evaluation", query, ""))
