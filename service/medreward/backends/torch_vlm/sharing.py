"""Shares one model out over several devices: which models can be, and how a rank finds the others."""

from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, Qwen3Config

from medreward.backends.base import RankSeat
from medreward.backends.torch_vlm.adapter import has_adapter
from medreward.backends.torch_vlm.linears import packed_bytes
from medreward.errors import ConfigurationError

FOREVER: Final = timedelta(days=1)  # who waits too long is ended from outside
EVEN: Final = ("num_attention_heads", "num_key_value_heads", "intermediate_size")
#: For the same layers under a name without a plan, or, from transformers 5.24, with one of the embedding alone.
PLANS: Final = {"qwen3_vl_text": Qwen3Config.base_model_tp_plan}


def join(seat: RankSeat, device: str) -> None:
    """Returns when all ranks are there. Fails where torch finds fewer CUDA devices than ranks."""
    on_cuda = device == "cuda"
    if on_cuda:
        devices = torch.cuda.device_count()
        if devices < seat.ranks:
            raise ConfigurationError(f"torch found {devices} of the {seat.ranks} CUDA devices that the model needs")
        torch.cuda.set_device(seat.rank)
    distributed.init_process_group(
        "nccl" if on_cuda else "gloo",
        f"file:///proc/self/fd/{seat.meeting_fd}",
        rank=seat.rank,
        world_size=seat.ranks,
        timeout=FOREVER,
        device_id=torch.device(device, seat.rank) if on_cuda else None,
    )


def config_to_share(folder: Path, ranks: int) -> Any:
    """Returns the config of a model that as many ranks can share. Any other model is refused before a weight is
    read.
    """
    if has_adapter(folder):
        raise ConfigurationError(f"the adapter in {folder} must be merged into its base before ranks can share it")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text = config.get_text_config()
    text.base_model_tp_plan = (text.base_model_tp_plan or {}) | PLANS.get(text.model_type, {})
    if not text.base_model_tp_plan:
        raise ConfigurationError(f"transformers has no plan to share a language model of type {text.model_type}")
    for name in EVEN:
        count = getattr(text, name, None) or 0
        if count % ranks:
            raise ConfigurationError(f"{name} is {count}, which {ranks} ranks cannot share evenly")
    return config


def whole(tensor: Tensor) -> Tensor:
    """Returns the whole of a weight. Where ranks share it, all of them must ask for it at the same time."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def held_bytes(module: Any) -> int:
    """Returns how many bytes of the module's weights this process holds."""
    parameters = sum((w.to_local() if isinstance(w, DTensor) else w).nbytes for w in module.parameters())
    return parameters + packed_bytes(module)
