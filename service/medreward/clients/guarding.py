"""A decorator that lets a function's answer through only where a server allows it."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from medreward.clients.client import AsyncClient
from medreward.clients.errors import NotAllowed
from medreward.clients.score import Screened
from medreward.clients.sync import Client

F = TypeVar("F", bound=Callable[..., Any])
Otherwise = Callable[[Any, Screened], Any]


def screened(
    client: Client | AsyncClient,
    *,
    policy: str | None = None,
    department: str = "",
    question: str = "question",
    image: str | None = "image",
    text: Callable[[Any], str] | None = None,
    otherwise: Otherwise | None = None,
) -> Callable[[F], F]:
    """Returns a decorator for a function that answers a question about an image.

    The function's result is returned only where its verdict is allow. For review, block, and unscored because the
    server failed in whatever way, `otherwise(result, screened)` is called and what it returns is returned; without it
    NotAllowed is raised. `question` and `image` name the function's parameters that hold them, `image=None` is for a
    function without one. `text` takes the text out of a result that is none. A function defined with `async def` needs
    an AsyncClient, any other a Client; a function that cannot be screened raises TypeError when it is decorated.
    """

    def decorate(answer: F) -> F:
        is_async = _check(answer, client, [question, *([image] if image is not None else [])])
        signature = inspect.signature(answer)

        def verdict_on(result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            """Asks for the verdict; with an AsyncClient what is returned must be awaited."""
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            shown = None if image is None else given.arguments[image]
            responses = [_text_of(result) if text is None else text(result)]
            options: dict[str, Any] = {"policy": policy, "department": department, "on_failure": "unscored"}
            return client.screen(shown, given.arguments[question], responses, **options)

        def instead(result: Any, decided: Screened) -> Any:
            if otherwise is None:
                raise NotAllowed(decided)
            return otherwise(result, decided)

        @wraps(answer)
        async def guarded_async(*args: Any, **kwargs: Any) -> Any:
            result = await answer(*args, **kwargs)
            (decided,) = await verdict_on(result, args, kwargs)
            if decided.allowed:
                return result
            other = instead(result, decided)
            return await other if inspect.isawaitable(other) else other

        @wraps(answer)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            result = answer(*args, **kwargs)
            (decided,) = verdict_on(result, args, kwargs)
            return result if decided.allowed else instead(result, decided)

        return cast(F, guarded_async if is_async else guarded)

    return decorate


def _check(answer: Callable[..., Any], client: Client | AsyncClient, parameters: list[str]) -> bool:
    """Returns whether the function is async. Raises TypeError for one that cannot be screened with this client."""
    if inspect.isgeneratorfunction(answer) or inspect.isasyncgenfunction(answer):
        raise TypeError("an answer that is given in parts cannot be screened: return it whole")
    is_async = inspect.iscoroutinefunction(answer)
    if is_async != isinstance(client, AsyncClient):
        raise TypeError("an async function needs an AsyncClient, and any other function a Client")
    if missing := [name for name in parameters if name not in inspect.signature(answer).parameters]:
        raise TypeError(f"the function has no parameter {missing[0]!r}: name its own with `question` and `image`")
    return is_async


def _text_of(result: object) -> str:
    if not isinstance(result, str):
        raise TypeError(f"the function returned {type(result).__name__} and no text: give `text`, which takes it out")
    return result
