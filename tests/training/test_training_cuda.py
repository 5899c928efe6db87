"""What holds on an accelerator: no waiting within a round, and the losses of the CPU."""

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from restart_sampling.base.numerics import full_float32
from restart_sampling.base.ranks import Ranks
from restart_sampling.models.fast import fuse_training
from restart_sampling.models.song_unet import SongUNet
from restart_sampling.training.graphed import GraphedStep
from restart_sampling.training.trainer import Trainer, early_trainer, steps_of_training

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture
def on_device(data):
    return replace(data, images=data.images.cuda(), labels=data.labels.cuda())


def trainer(settings, data, **options):
    return Trainer(settings, data, Ranks(0, 1, data.images.device), **options)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize(("parametrization", "D"), [("edm", None), ("vp", None), ("pfgmpp", 64)])
def test_a_step_does_not_wait_for_the_device(parametrization, D, on_device, settings):
    settings = replace(settings, parametrization=parametrization, D=D, dtype="bfloat16")
    training = trainer(settings, on_device)
    training.step(0.01)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.step(0.02)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert 0.3 < training.end_round().loss < 3


def test_bfloat16_and_float32_agree_on_the_loss(on_device, settings):
    losses = []
    for dtype in ("float32", "bfloat16"):
        training = trainer(replace(settings, dtype=dtype, dropout=0.0), on_device)
        with full_float32():
            for step in range(20):
                training.step((step + 1) / 100)
        losses.append(training.end_round().loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_kernels_between_convolutions_have_the_gradients_of_torch():
    torch.manual_seed(0)
    sizes = {"model_channels": 64, "channel_mult": (1, 2, 3), "num_blocks": 1, "dropout": 0.0}
    plain = SongUNet(32, 3, 3, label_dim=2, **sizes).cuda().to(memory_format=torch.channels_last)
    with torch.no_grad():
        for weight in plain.parameters():  # those that start at 0 would hide the others
            weight.add_(0.05 * torch.randn_like(weight))
    fused = deepcopy(plain)
    fuse_training(fused, torch.float32)
    x, target = torch.randn(2, 3, 3, 32, 32, device="cuda")
    outs = []
    for network in (plain, fused):
        with full_float32():
            outs.append(network(x, torch.ones(3, device="cuda"), torch.eye(2, device="cuda")[[0, 1, 1]]))
            (outs[-1] * target).sum().backward()
    torch.testing.assert_close(*outs, rtol=1e-4, atol=1e-4)
    for (name, weight), other in zip(plain.named_parameters(), fused.parameters(), strict=True):
        error = (weight.grad - other.grad).norm() / weight.grad.norm()
        assert error < 1e-4, (name, error)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_steps_as_a_graph_are_those_without(dropout, on_device, settings):
    settings = replace(settings, dtype="bfloat16", dropout=dropout)
    losses = []
    for graphed in (False, True):
        training = trainer(settings, on_device)
        if graphed:
            training._gradients_of = GraphedStep(training._learn)
        for step in range(5):
            training.step((step + 1) / 20)
            losses.append(training.end_round().loss)
    assert losses[5:] == pytest.approx(losses[:5], rel=1e-3)


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-3), ("bfloat16", 0.02)])
def test_kernels_train_as_the_plain_network_and_go_on_from_its_state(dtype, close, on_device, settings):
    settings = replace(settings, dtype=dtype, dropout=0.0)  # which follows the layout in memory
    plain = trainer(settings, on_device)
    losses = []
    for step in range(5):
        if step == 2:
            state = deepcopy(plain.state())
        plain.step((step + 1) / 20)
        losses.append(plain.end_round().loss)
    fused = trainer(settings, on_device, network="kernels")
    fused.step(0.5)  # is captured before the state is there
    fused.end_round()
    fused.load_state(state)
    for step in range(2, 5):
        fused.step((step + 1) / 20)
        assert fused.end_round().loss == pytest.approx(losses[step], rel=close)


@pytest.mark.parametrize("label_dim", [0, 2])
def test_what_is_captured_in_a_thread_before_there_are_images_changes_no_step(label_dim, on_device, settings):
    settings = replace(settings, dtype="bfloat16", label_dim=label_dim)
    data = on_device if label_dim else replace(on_device, labels=None)
    with ThreadPoolExecutor(1) as beside:
        early = beside.submit(early_trainer, settings, Ranks(0, 1, data.images.device), "kernels").result()
    early.use(data)
    late = trainer(settings, data, network="kernels")
    for step in range(5):
        with steps_of_training(data.images.device):
            early.step((step + 1) / 20)
            late.step((step + 1) / 20)
        assert early.end_round().loss == pytest.approx(late.end_round().loss, rel=0.02)


def test_all_kernels_of_a_step_are_compiled_before_it(monkeypatch, tmp_path, on_device, settings):
    from triton import knobs

    from restart_sampling.models import gradient_kernels, kernels

    compiled = []
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(knobs.compilation, "listener", lambda src, **_: compiled.append(src.name))
    for kernel in (
        *(kernels._normalize, kernels._add, kernels._resample),
        *(gradient_kernels._normalize_backward, gradient_kernels._add_backward),
    ):
        monkeypatch.setattr(kernel, "device_caches", defaultdict(kernel.create_binder))
    settings = replace(settings, channels=64, channel_mult=(1, 3), attention=(4,), dtype="bfloat16")
    training = trainer(settings, on_device, network="kernels")
    assert len(compiled) == 11  # none of them twice
    training.step(0.1)
    assert len(compiled) == 11
