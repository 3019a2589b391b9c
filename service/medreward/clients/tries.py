"""Tries at servers until a call is answered: images are stored before it, refusals that pass are waited out within a
budget, and all answers come from one model.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from medreward.clients.calls import FORGETTINGS, Group, halves, home_of
from medreward.clients.errors import Refused, Unreachable, VersionChanged, describe
from medreward.clients.images import File
from medreward.clients.retries import Attempts, RetryBudget
from medreward.clients.score import Reply, Score, ScreenRequest
from medreward.clients.servers import Server, Servers
from medreward.errors import RETRYABLE, Code
from medreward.types import ModelRef, ScoreRequest

KNOWN_IMAGES: Final = 100_000
INTERNAL_TRIES: Final = 3  # a fault of the server may pass, but is not waited out

#: Refusals of a call that one of its responses may be the reason for.
ABOUT_CONTENT: Final = frozenset({Code.INVALID_FIELD, Code.TOO_MANY, Code.BODY_TOO_LARGE})

T = TypeVar("T")


class Tries:
    """What one client remembers of its servers: which model answered, and how much patience is left."""

    def __init__(self, servers: Servers, budget: RetryBudget, pin: bool | str) -> None:
        self._servers = servers
        self._reached = False  # whether a server ever answered
        self.budget = budget
        self.pin = pin
        self.fingerprint = pin if isinstance(pin, str) else None  # of the model that answers must come from
        self.served_by: ModelRef | None = None  # the model of the last answer

    async def finish(self, call: list[Group], request: ScoreRequest, scores: list[Score]) -> None:
        """Tries until every response of the call has its score, or an error that another try would not mend.

        Raises a refusal that is not about the content of the call, and one by a server that was never there.
        """
        attempts = Attempts(self.budget)
        while call := list(filter(is_unfinished, call)):
            retry_after = None
            home, ask = home_of(call[0]), partial(self._attempt, call, request, scores)
            try:
                if await self._try(home, ask):
                    continue
            except Refused as refused:
                if self._is_nobody_there(refused, attempts):
                    raise
                fill(call, scores, refused)
                if not refused.retryable:
                    if refused.code not in ABOUT_CONTENT:
                        raise
                    for half in halves(call) or ():  # for only one response may be the reason
                        await self.finish(half, request, scores)
                    return
                if refused.code == Code.INTERNAL and attempts.failed + 1 >= INTERNAL_TRIES:
                    return
                retry_after = self._servers.retry_after(refused)
            pause = attempts.pause(retry_after)
            if pause is None:
                return  # what is left holds the error of its last try
            await asyncio.sleep(pause)

    async def insist(self, key: str, call: Callable[[Server], Awaitable[T]]) -> T:
        """Returns the answer of the first try that has one; raises a refusal that another try would not mend."""
        attempts = Attempts(self.budget)
        while True:
            try:
                return await self._try(key, call)
            except Refused as refused:
                pause = attempts.pause(self._servers.retry_after(refused))
                if not refused.retryable or pause is None or self._is_nobody_there(refused, attempts):
                    raise
            await asyncio.sleep(pause)

    async def _try(self, key: str, call: Callable[[Server], Awaitable[T]]) -> T:
        """Returns the answer, and notes that a server is there, whatever it answers."""
        try:
            answer = await self._servers.ask(key, call)
        except Refused as refused:
            self._reached |= not isinstance(refused, Unreachable)
            raise
        self._reached = True
        return answer

    def _is_nobody_there(self, refused: Refused, attempts: Attempts) -> bool:
        """Returns whether to stop waiting for a server. One that was there comes back; one that never was is a wrong
        URL.
        """
        waited = attempts.seconds >= self.budget.patience.start_seconds
        return isinstance(refused, Unreachable) and self._servers.are_all_gone and not self._reached and waited

    async def _attempt(self, call: list[Group], request: ScoreRequest, scores: list[Score], server: Server) -> bool:
        """Makes one try. Returns False if what is left then is better asked after a pause."""
        await self._store_images(call, scores, server)
        call = list(filter(is_unfinished, call))
        if not call:
            return True
        items = tuple(group.item() for group in call)
        images = {tuple(file.sha256 for file in group.files) for group in call if group.files}
        affinity = images.pop()[0] if len(images) == 1 else None
        reply = await self.reply(replace(request, items=items), affinity, server)
        settled = [self._settle(*answered, scores, server) for answered in zip(call, reply.scores, strict=True)]
        return all(settled)

    async def reply(self, request: ScoreRequest, affinity: str | None, server: Server) -> Reply:
        """Returns the reply to one try; raises VersionChanged where another model gave it than the pinned one."""
        # A policy is made for its model, so verdicts may come from any; only a pin that names one holds for them.
        pins = isinstance(self.pin, str) if isinstance(request, ScreenRequest) else self.pin
        request = replace(request, id=uuid.uuid4().hex, fingerprint=self.fingerprint if pins else None)
        try:
            if isinstance(request, ScreenRequest):
                reply = await server.transport.screen(request, affinity)
            else:
                reply = await server.transport.score(request, affinity)
        except Refused as refused:
            if refused.code != Code.VERSION_CHANGED:
                raise
            try:
                served = await server.transport.model()
            except Refused:
                served = None
            if served and served.fingerprint == self.fingerprint:  # of another server behind the same address
                served = None
            raise self._version_changed(served) from None
        if pins and self.fingerprint is None:
            self.fingerprint = reply.model.fingerprint
        if pins and reply.model.fingerprint != self.fingerprint:
            raise self._version_changed(reply.model)
        self.served_by = reply.model
        return reply

    def _version_changed(self, served: ModelRef | None) -> VersionChanged:
        assert self.fingerprint is not None
        pinned = describe(self.served_by) if self.served_by else self.fingerprint
        why = "the first model that answered, by pin=True" if self.pin is True else "by its option `pin`"
        accept = f"pin={served.fingerprint!r}" if served else "the new model's fingerprint as `pin`"
        message = (
            f"the server has {describe(served) if served else 'another model'} now. This client is pinned to {pinned}, "
            f"{why}. Rewards of two models are on two scales. To go on with the new one, make a client with {accept}; "
            "pin=False takes any model"
        )
        return VersionChanged(message, self.fingerprint, served)

    def _settle(self, group: Group, answers: list[Score], scores: list[Score], server: Server) -> bool:
        """Takes what is final out of what is left. Returns False if the rest needs time, and not only its image
        again.
        """
        left, group.left = group.left, []
        for (place, response), score in zip(left, answers, strict=True):
            scores[place] = score
            if score.error in RETRYABLE or (score.error == Code.IMAGE_UNKNOWN and group.stored_images):
                group.left.append((place, response))
        if group.stored_images and any(score.error == Code.IMAGE_UNKNOWN for score in answers):
            for image in group.stored_images:
                server.stored.pop(image.sha256, None)
            group.forgotten += 1
        return not any(score.error in RETRYABLE for score in answers)

    async def _store_images(self, call: list[Group], scores: list[Score], server: Server) -> None:
        """Stores each image of the call once. The refusal of an image is the error of the responses about it."""
        for group in call:
            for image in group.stored_images:
                try:
                    await self._store(image, server)
                except Refused as refused:
                    if refused.code == Code.IMAGE_TOO_LARGE:  # for the store, perhaps not for the model
                        group.forgotten = FORGETTINGS
                        break
                    if not (refused.code == Code.BODY_TOO_LARGE or refused.code.startswith("image_")):
                        raise
                    fill([group], scores, refused)
                    group.left = []
                    break

    async def _store(self, image: File, server: Server) -> None:
        async with server.storing.setdefault(image.sha256, asyncio.Lock()):
            if image.sha256 in server.stored:
                return
            await server.transport.put_image(image.data, image.sha256)
            server.stored[image.sha256] = None
            if len(server.stored) > KNOWN_IMAGES:
                server.stored.popitem(last=False)


def is_unfinished(group: Group) -> bool:
    """Returns whether a response of the group has no final score yet."""
    return bool(group.left)


def fill(call: Iterable[Group], scores: list[Score], refused: Refused) -> None:
    """Gives what is left of the call the refusal as its error."""
    for group in call:
        for place, _ in group.left:
            scores[place] = Score(error=refused.code, message=refused.message, field=refused.field)
