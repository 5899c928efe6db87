import os
import sys
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from importlib.util import find_spec, module_from_spec
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F

import restart_sampling as rs
from restart_sampling import models
from restart_sampling.models import fast
from restart_sampling.models.compiled import CompiledNetwork, CompileTime, uncompiled
from restart_sampling.models.graphed import GraphedNetwork
from restart_sampling.models.song_unet import SongUNet

TINY = {"model_channels": 8, "channel_mult": [1], "num_blocks": 1, "attn_resolutions": []}


@pytest.fixture
def network(monkeypatch, tmp_path):
    """A network whose compiler is the identity, and which notes the batches that it gets."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
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


def test_a_network_that_is_compiled_or_a_graph_is_in_the_mode_that_it_was_in(network):
    plain, _, _ = network
    for wrapped in (CompiledNetwork, lambda own: GraphedNetwork(own, 4)):
        assert not any(module.training for module in wrapped(plain).modules())
        assert wrapped(plain.train()).training
        plain.eval()


def test_where_compiling_was_not_asked_for_small_batches_run_without_it(network):
    plain, _, batches = network
    compiled = CompiledNetwork(plain, batch=8)
    for count in (3, 8, 4, 5):
        torch.testing.assert_close(compiled(*inputs(count)), plain(*inputs(count)))
    assert batches == [8, 8, 8]


def test_a_batch_that_is_tried_is_not_compiled_for(network):
    plain, compiled, batches = network
    with uncompiled():
        torch.testing.assert_close(compiled(*inputs(4)), plain(*inputs(4)))
    compiled(*inputs(3))
    assert batches == [3]


def test_after_a_batch_that_does_not_fit_smaller_ones_are_not_filled_up_to_it(network, monkeypatch):
    plain, _, _ = network
    batches = []

    def fits_three(*inputs):
        batches.append(len(inputs[0]))
        if batches[-1] > 3:
            raise torch.OutOfMemoryError
        return plain(*inputs)

    monkeypatch.setattr(torch, "compile", lambda module, **_: fits_three)
    compiled = CompiledNetwork(plain, batch=6)
    with pytest.raises(torch.OutOfMemoryError):
        compiled(*inputs(6))
    compiled(*inputs(3))
    compiled(*inputs(2))
    assert batches == [6, 3, 3]


def test_where_compiling_was_not_asked_for_and_fails_the_network_runs_without_it(network, monkeypatch, caplog):
    plain, _, _ = network

    def fail(*inputs):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr(torch, "compile", lambda module, **_: fail)
    compiled = CompiledNetwork(plain, batch=4)
    for count in (4, 3):
        torch.testing.assert_close(compiled(*inputs(count)), plain(*inputs(count)))
    assert [record.message for record in caplog.records] == [
        "the network cannot be compiled here (RuntimeError: no C compiler); going on without"
    ]
    with pytest.raises(RuntimeError, match="no C compiler"):
        CompiledNetwork(plain)(*inputs(4))


def test_the_seconds_of_compiling_are_remembered_for_each_batch_size(network, tmp_path):
    plain, compiled, _ = network
    layers = sum(weight.ndim > 1 for weight in plain.parameters())
    assert CompileTime(plain, 4).expected() == pytest.approx(0.3 * layers)
    compiled(*inputs(4))
    compiled(*inputs(4))
    (file,) = tmp_path.glob("seconds/*.json")
    for known, expected in (("[40]", 16), ("[40, 11]", 11), ("damaged", 0.3 * layers), ("{}", 0.3 * layers)):
        file.write_text(known)
        assert CompileTime(plain, 4).expected() == pytest.approx(expected)
    assert CompileTime(plain, 8).expected() == pytest.approx(0.3 * layers)
    file.write_text("[40, 11]")
    CompileTime(plain, 4).add(12.34)
    assert CompileTime(plain, 4).expected() == 12.3
    assert file.read_text().split() == ["[", "40.0,", "12.3", "]"]


def test_what_is_compiled_is_kept_in_our_cache_unless_the_user_names_another(network, monkeypatch, tmp_path):
    plain, _, _ = network
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", str(tmp_path / "ours"))
    CompiledNetwork(plain)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "ours" / "compiled")


def test_a_graph_serves_one_batch_size_and_others_run_without_it(network, monkeypatch):
    plain, _, _ = network
    graphed = GraphedNetwork(plain, 4)
    captured = []

    @contextmanager
    def capture(graph, capture_error_mode):
        captured.append(len(graphed._inputs[0]))
        yield

    class Graph:
        def replay(self):
            graphed._out.copy_(plain(*graphed._inputs))

    for name, stand_in in (
        ("Stream", MagicMock()),
        ("current_stream", MagicMock()),
        ("stream", lambda stream: nullcontext()),
        ("graph", capture),
        ("CUDAGraph", Graph),
        ("empty_cache", lambda: None),
    ):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    with torch.no_grad():
        for count in (4, 3, 4, 6):
            x, noise, labels = inputs(count)
            for each in (x, x + 1):
                torch.testing.assert_close(graphed(each, noise, labels), plain(each, noise, labels))
    graphed(*inputs(4))  # with gradients
    assert captured == [4]


def test_after_a_graph_that_does_not_fit_the_network_runs_without(network, monkeypatch):
    graphed = GraphedNetwork(network[0], 4)
    monkeypatch.setattr(graphed, "_capture", MagicMock(side_effect=torch.OutOfMemoryError))
    with torch.no_grad():
        with pytest.raises(torch.OutOfMemoryError):
            graphed(*inputs(4))
        torch.testing.assert_close(graphed(*inputs(4)), network[0](*inputs(4)))


def with_kernels(monkeypatch, name, kernels):
    """A module of `models`, made anew with other kernels, as those of the package need Triton."""
    for each in ("kernels", "gradient_kernels"):
        monkeypatch.setitem(sys.modules, f"restart_sampling.models.{each}", kernels)
        monkeypatch.setattr(models, each, kernels, raising=False)
    spec = find_spec(f"restart_sampling.models.{name}")
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


class TorchKernels:
    """What the kernels with gradients compute."""

    @staticmethod
    def normalize(x, norm, *, silu=False, before=None):
        h = x if before is None else x + before[:, :, None, None]
        h = F.group_norm(h, norm.num_groups, norm.weight, norm.bias, norm.eps)
        return F.silu(h) if silu else h, x

    @staticmethod
    def add(a, b, bias, scale):
        return ((a + b + bias[:, None, None]) * scale).contiguous()  # or dropout draws in another order

    @staticmethod
    def resample(x, direction):
        return F.interpolate(x, scale_factor=2) if direction == "up" else F.avg_pool2d(x, 2)


def test_a_network_for_training_with_kernels_is_the_network(monkeypatch):
    with_kernels(monkeypatch, "fused", TorchKernels)
    training = with_kernels(monkeypatch, "fused_training", TorchKernels)
    torch.manual_seed(0)
    sizes = {"model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4], "dropout": 0.3}
    plain = SongUNet(8, 3, 3, label_dim=2, **sizes)
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    fused = deepcopy(plain)
    training.fuse_for_training(fused)
    assert fused.state_dict().keys() == plain.state_dict().keys()
    outs = []
    for network in (plain, fused):
        torch.manual_seed(1)
        outs.append(network(*inputs(3)))
        outs[-1].square().sum().backward()
    torch.testing.assert_close(outs[1], outs[0])
    for (name, weight), other in zip(plain.named_parameters(), fused.parameters(), strict=True):
        torch.testing.assert_close(other.grad, weight.grad, rtol=1e-3, atol=1e-4 * weight.grad.norm(), msg=name)


def test_a_network_with_kernels_runs_on_the_cpu_without_them(monkeypatch):
    fused = with_kernels(monkeypatch, "fused", MagicMock())
    network = SongUNet(8, 3, 3, label_dim=2, **TINY).eval().requires_grad_(False)
    expected = network(*inputs(3))
    assert fused.fuse(network)
    torch.testing.assert_close(network(*inputs(3)), expected)


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
    weight = model.model.enc["32x32_conv"].weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == (dtype == torch.bfloat16)


def test_kernels_serve_in_training_where_a_batch_fills_the_device(monkeypatch):
    cuda = torch.device("cuda", 0)
    chip = SimpleNamespace(major=9, multi_processor_count=132)
    monkeypatch.setattr(fast, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: chip)
    assert [fast.kernels_serve(cuda, images) for images in (65, 66, 512)] == [False, True, True]
    assert not fast.kernels_serve(torch.device("cpu"), 512)
    chip.major = 6
    assert not fast.kernels_serve(cuda, 512)
    chip.major = 9
    monkeypatch.setattr(fast, "find_spec", lambda name: None)
    assert not fast.kernels_serve(cuda, 512)


def test_kernels_of_training_are_kept_in_the_folder_for_caches(monkeypatch, tmp_path):
    folders = []
    kernels = SimpleNamespace(compile_kernels=lambda *asked: folders.append((*asked, os.environ["TRITON_CACHE_DIR"])))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", "")
    monkeypatch.delenv("TRITON_CACHE_DIR")
    monkeypatch.setitem(sys.modules, "restart_sampling.models.gradient_kernels", kernels)
    fast.compile_for_training(torch.device("cpu"), torch.bfloat16)
    assert folders == [(torch.device("cpu"), torch.bfloat16, str(tmp_path / "compiled" / "triton"))]
