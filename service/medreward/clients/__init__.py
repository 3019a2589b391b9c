"""Clients of a MedReward server. Importing them loads nothing of the server: no fastapi, no torch, no onnxruntime."""

from medreward.clients.client import AsyncClient, Triple
from medreward.clients.errors import ClientError, NotScored, Refused, VersionChanged
from medreward.clients.retries import Patience
from medreward.clients.score import Score
from medreward.clients.sync import Client

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "NotScored",
    "Patience",
    "Refused",
    "Score",
    "Triple",
    "VersionChanged",
]
