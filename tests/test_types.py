import pytest

from medreward.types import Runtime


def test_a_runtime_is_read_from_what_a_reply_says() -> None:
    runtime = Runtime.of("onnx/cpu/fp32")
    assert (runtime.backend, runtime.device, runtime.dtype) == ("onnx", "cpu", "fp32")


@pytest.mark.parametrize("text", ["onnx/cpu/fp32", "torch_vlm/cuda/bf16", "another", ""])
def test_a_runtime_is_written_as_it_was_read(text: str) -> None:
    assert str(Runtime.of(text)) == text
