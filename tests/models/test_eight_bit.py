"""Weights in 8 bit with a scale for each output channel."""

import torch
from safetensors.torch import save_file

from restart_sampling.models.eight_bit import quantised, read_quantised


def test_a_weight_is_off_by_half_a_step_of_its_channel(tmp_path):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.tensor([1e-4, 0.1, 1.0, 50.0, 0.0])
    kernel = torch.randn(5, 3, 3, 3, generator=generator) * sizes[:, None, None, None]
    state = {"conv.weight": kernel, "conv.bias": torch.tensor([1.5, -0.25]), "linear.weight": kernel[:, 0, 0]}
    save_file(quantised(state), tmp_path / "weights.safetensors")
    read = read_quantised(tmp_path / "weights.safetensors")
    assert read.keys() == state.keys()
    assert {tensor.dtype for tensor in read.values()} == {torch.float32}
    assert torch.equal(read["conv.bias"], state["conv.bias"])
    for key in ("conv.weight", "linear.weight"):
        weight, found = state[key].flatten(1), read[key].flatten(1)
        largest = weight.abs().amax(1)
        assert ((found - weight).abs().amax(1) <= largest / 254 * (1 + 1e-5)).all()
        assert torch.allclose(found.abs().amax(1), largest, rtol=1e-6)


def test_the_file_has_a_byte_a_weight(tmp_path):
    save_file(quantised({"weight": torch.randn(64, 1000)}), tmp_path / "weights.safetensors")
    assert (tmp_path / "weights.safetensors").stat().st_size < 64 * 1000 + 64 * 4 + 300
