"""The kernels of the package on a CPU, by Triton's interpreter: TRITON_INTERPRET=1 pytest, with Triton installed."""

import os
from contextlib import nullcontext
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from restart_sampling.models.song_unet import SongUNet

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1")

SIZES = {"model_channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())


@pytest.fixture
def kernels():
    from restart_sampling.models import kernels

    return kernels


def channels_last(*shape):
    return torch.randn(*shape).to(memory_format=torch.channels_last)


@pytest.mark.parametrize(("channels", "groups"), [(64, 16), (96, 32), (32, 4)])
@pytest.mark.parametrize("silu", [False, True])
def test_normalize(channels, groups, silu, kernels):
    torch.manual_seed(0)
    x, more, norm = channels_last(2, channels, 6, 6), channels_last(2, channels, 6, 6), nn.GroupNorm(groups, channels)
    for weight in norm.requires_grad_(False).parameters():
        nn.init.normal_(weight)
    before, scale, shift = torch.randn(3, 2, channels)
    joined = nn.GroupNorm(groups, 2 * channels).requires_grad_(False)
    for options, plain in (
        ({}, norm(x)),
        ({"before": before}, norm(x + before[..., None, None])),
        ({"scale": scale, "shift": shift}, norm(x) * (1 + scale[..., None, None]) + shift[..., None, None]),
    ):
        torch.testing.assert_close(kernels.normalize(x, norm, silu=silu, **options), F.silu(plain) if silu else plain)
    plain = joined(torch.cat([x, more], dim=1))
    torch.testing.assert_close(kernels.normalize(x, joined, more=more, silu=silu), F.silu(plain) if silu else plain)


def test_add_and_resample(kernels):
    torch.manual_seed(0)
    a, b, bias = channels_last(2, 40, 6, 6), channels_last(2, 40, 6, 6), torch.randn(40)
    torch.testing.assert_close(kernels.add(a, b, bias, 0.7), (a + b + bias[:, None, None]) * 0.7)
    torch.testing.assert_close(kernels.resample(a, "up"), F.interpolate(a, scale_factor=2))
    torch.testing.assert_close(kernels.resample(a, "down"), F.avg_pool2d(a, 2))


def test_gradients_between_convolutions_are_those_of_torch():
    from restart_sampling.models.fused_training import fuse_for_training

    torch.manual_seed(0)
    plain = SongUNet(8, 3, 3, label_dim=2, dropout=0.0, **SIZES).to(memory_format=torch.channels_last)
    with torch.no_grad():
        for weight in plain.parameters():  # those that start at 0 would hide the others
            weight.add_(0.05 * torch.randn_like(weight))
    fused = deepcopy(plain)
    fuse_for_training(fused)
    x, target = torch.randn(2, 3, 3, 8, 8)
    outs = []
    for network in (plain, fused):
        outs.append(network(x, torch.ones(3), torch.eye(2)[[0, 1, 1]]))
        (outs[-1] * target).sum().backward()
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-4)
    for (name, weight), other in zip(plain.named_parameters(), fused.parameters(), strict=True):
        error = (weight.grad - other.grad).norm() / weight.grad.norm()
        assert error < 1e-4, (name, error)


@pytest.mark.parametrize(("images", "channels", "groups", "height", "width"), [(1, 130, 13, 3, 11), (2, 200, 1, 1, 65)])
def test_gradients_of_odd_sizes_and_of_parts_of_a_tensor(images, channels, groups, height, width):
    from restart_sampling.models.gradient_kernels import add, normalize

    torch.manual_seed(0)
    shape = images, channels, height, width
    x, norm = (3 + torch.randn(shape)).requires_grad_(), nn.GroupNorm(groups, channels)
    before, bias = (torch.randn(size, requires_grad=True) for size in ((images, channels), (channels,)))
    d_out = channels_last(images, 2 * channels, height, width)[:, channels:]  # as of what was joined
    wanted = x, norm.weight, norm.bias, before, bias
    fused, same = normalize(x, norm, silu=True, before=before)
    plain = F.silu(norm(x + before[..., None, None]))
    outs = [add(fused, same, bias, 0.7), (plain + x + bias[:, None, None]) * 0.7]
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-4)
    gradients = [torch.autograd.grad(out, wanted, d_out) for out in outs]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3)
