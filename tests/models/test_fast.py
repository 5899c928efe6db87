import pytest
import torch

import restart_sampling as rs
from restart_sampling.models.fast import CompiledNetwork
from restart_sampling.models.song_unet import SongUNet

TINY = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}


@pytest.fixture
def network(monkeypatch):
    """A network whose compiler is the identity, and which notes the batches that it gets."""
    torch.manual_seed(0)
    network = SongUNet(8, 3, 3, label_dim=2, **TINY).eval().requires_grad_(False)
    batches = []
    monkeypatch.setattr(
        torch, "compile", lambda module, **_: lambda *inputs: batches.append(len(inputs[0])) or module(*inputs)
    )
    compiled = CompiledNetwork(network)
    return network, compiled, batches


def inputs(count):
    generator = torch.Generator().manual_seed(count)
    labels = torch.eye(2)[torch.arange(count) % 2]
    return torch.randn(count, 3, 8, 8, generator=generator), torch.rand(count, generator=generator), labels


def test_smaller_batches_are_filled_up_and_cut_again(network):
    plain, compiled, batches = network
    for count in (4, 3, 1, 4, 6, 5):
        torch.testing.assert_close(compiled(*inputs(count)), plain(*inputs(count)))
    assert batches == [4, 4, 4, 4, 6, 6]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_the_state_and_the_tables(dtype):
    model = rs.load_model("cifar10-small")
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.5, 5.0], dtype=torch.float64)
    with torch.no_grad():
        exact = model(x, sigma)
        rounded = rs.fast(model, dtype)(x, sigma)
    assert rounded.dtype == torch.float64
    error = ((rounded - exact).norm() / exact.norm()).item()
    assert 0 < error < (2e-3 if dtype == torch.float16 else 2e-2)
