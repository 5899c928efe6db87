"""Weights in 8 bits are near the weights they were, and files that hold half of them are refused."""

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from restart_sampling.base.errors import InputError
from restart_sampling.cli.model import model as group
from restart_sampling.models.int8 import dequantized, quantized
from restart_sampling.models.read_checkpoint import load_model, read_checkpoint
from restart_sampling.models.resolve import resolve
from restart_sampling.models.write_checkpoint import write_safetensors


def test_a_number_is_off_by_half_a_step_at_most_unless_clipping_pays():
    weights = torch.randn(64, 32, 3, 3, generator=torch.Generator().manual_seed(1))
    stored = quantized({"weight": weights})
    back = dequantized(stored)["weight"]
    step = stored["weight:scale"].float().view(-1, 1, 1, 1)
    error = (back - weights).abs()
    inside = weights.abs() <= 127 * step
    assert (error <= step / 2 * 1.0001)[inside].all()
    plain = (weights.flatten(1).abs().amax(1) / 127).view(-1, 1, 1, 1)
    of_plain = ((weights / plain).round() * plain - weights).square().sum((1, 2, 3))
    assert (error.square().sum((1, 2, 3)) <= of_plain * 1.001).all()


def test_clipping_is_chosen_where_a_lone_number_would_take_the_range():
    channel = torch.linspace(-1, 1, 100_000)[None]
    channel[0, 0] = 1.3
    assert quantized({"w": channel})["w:scale"].item() < 0.9 * 1.3 / 127


def test_what_is_small_or_of_one_dimension_stays_as_it_is():
    state = {"bias": torch.randn(4096), "filter": torch.full((1, 1, 2, 2), 0.3), "table": torch.tensor(5.0)}
    assert all(tensor is state[name] for name, tensor in quantized(state).items())


def test_a_channel_of_zeros_stays_zero():
    weights = torch.zeros(2, 1024)
    weights[1] = 1
    assert torch.equal(dequantized(quantized({"w": weights}))["w"][0], torch.zeros(1024))


def test_a_network_answers_nearly_the_same_from_half_the_bytes(tmp_path):
    out = tmp_path / "small.safetensors"
    checkpoint = read_checkpoint(resolve("cifar10-pfgmpp-small"))
    generator = torch.Generator().manual_seed(1)
    for tensor in checkpoint.state.values():  # which have 8 bits already
        tensor *= 1 + 0.01 * torch.randn(tensor.shape, generator=generator)
    write_safetensors(checkpoint, out, int8=True)
    assert out.stat().st_size < sum(tensor.numel() for tensor in checkpoint.state.values()) * 1.05
    first, second = checkpoint.build(), load_model(out)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    for sigma in (0.1, 10.0):
        levels = torch.full((1,), sigma)
        noisy = x * (0.25 + sigma**2) ** 0.5
        wanted, got = first(noisy, levels), second(noisy, levels)
        assert (got - wanted).norm() < 0.01 * (noisy - wanted).norm()
    assert all(torch.equal(second.state_dict()[key], tensor) for key, tensor in read_checkpoint(out).state.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("w:scale"), "w has 8 bits, and no scale for each output channel"),
        (lambda state: state.update({"w:scale": torch.ones(3)}), "w has 8 bits, and no scale for each output channel"),
        (lambda state: state.update({"w:scale": torch.ones(2, dtype=torch.int8)}), "w has 8 bits, and no scale"),
        (lambda state: state.pop("w"), "w:scale scales no tensor of 8 bits"),
        (lambda state: state.update(w=torch.ones(2, 512)), "w:scale scales no tensor of 8 bits"),
    ],
)
def test_half_of_a_pair_is_refused(change, message, tmp_path):
    state = quantized({"w": torch.ones(2, 512)})
    change(state)
    metadata = {"format": "restart-sampling/1", "class_name": "EDMPrecond", "init_kwargs": "{}"}
    save_file(state, tmp_path / "half.safetensors", metadata)
    with pytest.raises(InputError, match=message):
        read_checkpoint(tmp_path / "half.safetensors")


def test_convert(tmp_path):
    out = tmp_path / "small.safetensors"
    result = CliRunner().invoke(group, ["convert", "cifar10-vp-small", str(out), "--int8"])
    assert result.exit_code == 0, result.output
    assert torch.int8 in {tensor.dtype for tensor in load_file(out).values()}
    assert read_checkpoint(out).metadata["precision"] == "int8, a scale for each output channel"
    shown = CliRunner().invoke(group, ["inspect", str(out)]).output.splitlines()
    assert [line.split(maxsplit=1)[1] for line in shown if line.startswith("weights")] == ["float16, int8 with scales"]
