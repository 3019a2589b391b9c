"""Gradient checkpointing that keeps the states of a prompt, which transformers' own gives up."""

from collections.abc import Callable
from copy import copy
from functools import wraps
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_layers(model: nn.Module) -> int:
    """Makes each layer run again in the backward pass in place of keeping what it made; returns how many layers do."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = _recomputing(layer.forward)
    return len(layers)


def _recomputing(forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def again(*args: Any, **kwargs: Any) -> Any:
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        before = [copy(layer) for layer in cache.layers] if cache is not None else []

        def run(*inputs: Any) -> Any:
            if cache is not None:  # a second run would put its keys behind those of the first
                cache.layers = [copy(layer) for layer in before]
            return forward(*inputs, **kwargs)

        return checkpoint(run, *args, use_reentrant=False)

    return again
