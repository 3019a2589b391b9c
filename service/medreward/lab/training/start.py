"""The weights of a served model, to go on from: what its graphs hold, under the names of the parts that train."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from medreward.errors import ConfigurationError


def load_served(module: nn.Module, graph: Path, prefix: str = "", fresh: tuple[str, ...] = ()) -> None:
    """Copy into `module` what the graph holds below `prefix`.

    It fails if a parameter that is to be learnt is left without a weight, unless its name starts with one of `fresh`.
    """
    held = _held(graph)
    found = {}
    for name, value in module.named_parameters():
        given = held.get(f"{prefix}{name}")
        if given is not None and given.shape == value.shape:
            found[name] = given
        elif value.requires_grad and not name.startswith(fresh):
            raise ConfigurationError(f"{graph} holds no weight for {prefix}{name} of shape {tuple(value.shape)}")
    module.load_state_dict(found, strict=False)


def _held(graph: Path) -> dict[str, Tensor]:
    """Returns weights by name; the exporter turns a linear layer's weight and drops its name, but its bias has one."""
    try:
        model = onnx.load(graph)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read the graph {graph}: {error}") from None
    wide = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    stored = {value.name: value for value in model.graph.initializer}

    def array(name: str) -> "np.typing.NDArray[Any] | None":
        value = stored.get(name) or stored.get(wide.get(name, ""))
        return None if value is None else numpy_helper.to_array(value)

    found = {}
    for name in (name.removesuffix(".half") for name in stored):
        value = array(name)
        if value is not None and value.dtype.kind == "f":
            found[name] = value
    if rows := sorted(name for name in found if name.startswith("select_")):  # the only table that is read row by row
        found["scorer.parts"] = np.stack([found[name] for name in rows])
    product = {node.output[0]: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    for node in model.graph.node:
        if node.op_type != "Add":
            continue
        for weight, bias in (node.input, node.input[::-1]):
            turned = array(product[weight]) if weight in product else None
            if turned is not None and bias.endswith(".bias"):
                found[f"{bias.removesuffix('.bias')}.weight"] = turned.T
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in found.items()}
