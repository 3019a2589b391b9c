"""The shapes that other programs send as they are, a file each. Those of trainers are thin translations of the engine
call that /score makes (docs/trainers/wire.md), those of gateways of the screening that /v1/screen asks
(docs/screening.md)."""

from typing import Final

from fastapi import APIRouter
from fastapi.routing import APIRoute

from medreward.api.compat import (
    classify,
    litellm,
    llamafactory,
    moderations,
    nemo_gym,
    oip_rest,
    openrlhf,
    roll,
    slime,
)
from medreward.api.compat.asking import Foreign
from medreward.api.compat.roll import Jobs as Jobs
from medreward.api.openapi import paths

_SCORING: Final = tuple(route.router for route in (openrlhf, slime, llamafactory, classify, nemo_gym, roll, oip_rest))
_DECIDING: Final = (litellm.router, moderations.router)
ROUTERS: Final[tuple[APIRouter, ...]] = (*_SCORING, *_DECIDING)
SHAPES: Final[tuple[type[Foreign], ...]] = (
    openrlhf.GetRewardRequest,
    slime.RmRequest,
    llamafactory.EvaluationRequest,
    classify.ClassifyRequest,
    nemo_gym.VerifyRequest,
    roll.SubmitRequest,
    roll.ResultRequest,
    oip_rest.InferRequest,
    litellm.GuardrailRequest,
    moderations.ModerationRequest,
)
_ROUTES: Final = [route for router in _SCORING for route in router.routes if isinstance(route, APIRoute)]
#: The routes that may fill an answer that was not scored.
FILLING: Final = tuple(route.path for route in _ROUTES if "POST" in (route.methods or ()))
#: The routes that decide; they are always interactive.
DECIDING: Final = tuple(paths(*_DECIDING))
