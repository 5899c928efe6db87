"""What holds on an accelerator: no waiting within a round, and the losses of the CPU."""

from dataclasses import replace

import pytest
import torch

from restart_sampling.base.numerics import full_float32
from restart_sampling.base.ranks import Ranks
from restart_sampling.training.trainer import Trainer

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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_trains_as_a_plain_one(on_device, settings):
    losses = []
    for compiled in (False, True):
        training = trainer(replace(settings, dtype="bfloat16", dropout=0.0), on_device, compiled=compiled)
        for step in range(20):
            training.step((step + 1) / 100)
        losses.append(training.end_round().loss)
    assert losses[0] == pytest.approx(losses[1], rel=0.1)  # the dropout of labels is drawn otherwise
