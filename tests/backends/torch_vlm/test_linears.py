"""Linear layers with packed weights: the same products, whoever else is in the forward."""

from pathlib import Path

import pytest
import torch
from torch import nn

from medreward.backends.torch_vlm.linears import PackedLinear, dtypes_to_pack, pack_linears, packed_bytes

ROWS = 700


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def layer(request: pytest.FixtureRequest) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(768, 160, dtype=request.param).requires_grad_(False)


def rows(layer: nn.Linear) -> torch.Tensor:
    return torch.randn(ROWS, layer.in_features, dtype=layer.weight.dtype)


def test_products_are_those_of_the_plain_layer(layer: nn.Linear) -> None:
    inputs = rows(layer).view(7, 100, -1)
    plain, packed = layer(inputs), PackedLinear(layer)(inputs)
    assert packed.shape == plain.shape
    torch.testing.assert_close(packed, plain)


def test_how_many_rows_there_are_changes_no_bit_of_one(layer: nn.Linear) -> None:
    inputs, packed = rows(layer), PackedLinear(layer)
    whole = packed(inputs)
    for count in (1, 2, 7, 33, 64, 129, 333):
        for start in (0, 37, 300):
            assert torch.equal(packed(inputs[start : start + count]), whole[start : start + count])


def test_packing_keeps_one_copy_of_each_weight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("medreward.backends.torch_vlm.linears.CPU", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("vendor_id : AuthenticAMD")
    model = nn.Sequential(nn.Linear(64, 32), nn.ModuleDict({"inner": nn.Linear(32, 16, bias=False)}))
    pack_linears(model)
    assert packed_bytes(model) == 4 * (64 * 32 + 32 * 16)
    assert [*model.parameters()] == []


@pytest.mark.parametrize(("vendor", "packs"), [("GenuineIntel", False), ("AuthenticAMD", True)])
def test_fp32_is_packed_where_mkl_is_slow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vendor: str, packs: bool
) -> None:
    monkeypatch.setattr("medreward.backends.torch_vlm.linears.CPU", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(f"vendor_id : {vendor}")
    assert (torch.float32 in dtypes_to_pack()) == packs
