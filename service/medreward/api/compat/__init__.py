"""The shapes that trainers send as they are, a file each: thin translations of the same engine call that /score makes.
docs/trainers/wire.md shows them."""

from typing import Final

from fastapi import APIRouter
from fastapi.routing import APIRoute

from medreward.api.compat import classify, llamafactory, nemo_gym, oip_rest, openrlhf, roll, slime
from medreward.api.compat.asking import Foreign
from medreward.api.compat.roll import Jobs as Jobs

ROUTERS: Final[tuple[APIRouter, ...]] = tuple(
    route.router for route in (openrlhf, slime, llamafactory, classify, nemo_gym, roll, oip_rest)
)
SHAPES: Final[tuple[type[Foreign], ...]] = (
    openrlhf.GetRewardRequest,
    slime.RmRequest,
    llamafactory.EvaluationRequest,
    classify.ClassifyRequest,
    nemo_gym.VerifyRequest,
    roll.SubmitRequest,
    roll.ResultRequest,
    oip_rest.InferRequest,
)
_ROUTES: Final = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
#: The routes that may fill an answer that was not scored.
FILLING: Final = tuple(route.path for route in _ROUTES if "POST" in (route.methods or ()))
