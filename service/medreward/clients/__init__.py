"""Clients of a MedReward server. Importing them loads nothing of the server: no fastapi, no torch, no onnxruntime."""

from medreward.clients.calls import Triple
from medreward.clients.client import AsyncClient
from medreward.clients.errors import ClientError, Closed, NotAllowed, NotScored, Refused, Unreachable, VersionChanged
from medreward.clients.guarding import screened
from medreward.clients.retries import Patience
from medreward.clients.score import Best, Contribution, Policy, Reason, Score, Screened, Step
from medreward.clients.sync import Client
from medreward.clients.transport import Tls

__all__ = [
    "AsyncClient",
    "Best",
    "Client",
    "ClientError",
    "Closed",
    "Contribution",
    "NotAllowed",
    "NotScored",
    "Patience",
    "Policy",
    "Reason",
    "Refused",
    "Score",
    "Screened",
    "Step",
    "Tls",
    "Triple",
    "Unreachable",
    "VersionChanged",
    "screened",
]
