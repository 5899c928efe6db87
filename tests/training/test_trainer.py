"""Steps of training: what they change, in which precision, and that a saved state goes on with them bit for bit."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.training.gradients import FlatGradients
from restart_sampling.training.settings import Settings
from restart_sampling.training.trainer import Trainer, early_trainer

ONE = Ranks(0, 1, torch.device("cpu"))


def weights(trainer):
    state = trainer.state()
    return {**state["network"], **{f"ema {name}": tensor for name, tensor in state["ema"].items()}}


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize(("parametrization", "D"), [("edm", None), ("vp", None), ("pfgmpp", 64)])
def test_a_saved_state_goes_on_bit_for_bit(parametrization, D, data, settings):
    settings = replace(settings, parametrization=parametrization, D=D)
    undisturbed = Trainer(settings, data, ONE)
    stopped = Trainer(settings, data, ONE)
    for step in range(4):
        undisturbed.step(step / 4)
    for step in range(2):
        stopped.step(step / 4)
    file = io.BytesIO()
    torch.save(stopped.state(), file)
    file.seek(0)
    torch.manual_seed(99)
    resumed = Trainer(replace(settings, seed=3), data, ONE)  # other weights at first
    resumed.settings = settings
    resumed.load_state(torch.load(file, weights_only=True))
    for step in range(2, 4):
        resumed.step(step / 4)
    assert_equal(weights(undisturbed), weights(resumed))
    assert resumed.images == 4 * settings.batch


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_names_of_the_weights_are_those_of_the_denoiser_also_when_compiled(data, settings):
    trainer = Trainer(settings, data, ONE, network="compiled")
    assert trainer.state()["network"].keys() == settings.build().state_dict().keys()


def test_where_kernels_cannot_be_compiled_it_trains_without(data, settings, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no C compiler")

    monkeypatch.setattr("restart_sampling.training.trainer.fuse_training", fail)
    plain, fused = (Trainer(settings, data, ONE, network=network) for network in ("plain", "kernels"))
    assert (
        "the kernels of this package cannot be compiled here (RuntimeError: no C compiler); going on without"
        in caplog.text
    )
    for trainer in (plain, fused):
        trainer.step(0.1)
    assert_equal(weights(plain), weights(fused))


class Replayed:
    """In place of a CUDA graph."""

    def __init__(self, call, warm_ups):
        for _ in range(warm_ups):
            call()
        self.call, self.loss = call, call()

    def replay(self):
        self.loss.copy_(self.call())


def test_what_is_captured_before_there_are_images_changes_no_step(data, settings, monkeypatch):
    for name in ("get_rng_state", "set_rng_state", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: nullcontext())
    captures = []

    def captured(call, warm_ups):
        captures.append(threading.current_thread())
        graph = Replayed(call, warm_ups)
        return graph, graph.loss

    monkeypatch.setattr("restart_sampling.training.graphed.captured", captured)
    monkeypatch.setattr("restart_sampling.training.trainer.fuse_training", lambda *_: None)
    plain = Trainer(settings, data, ONE)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with ThreadPoolExecutor(1) as beside:
        early = beside.submit(early_trainer, settings, ONE, "kernels").result()
    assert torch.equal(torch.get_rng_state(), before)
    assert captures[0] is not threading.main_thread()
    early.use(replace(data, sha256="ab"))
    for progress in (0.1, 0.5):
        for trainer in (plain, early):
            trainer.step(progress)
    assert len(captures) == 1
    assert plain.end_round() == early.end_round()
    assert_equal(weights(plain), weights(early))
    assert early.settings == replace(settings, data_sha256="ab")


def test_a_batch_or_a_network_that_does_not_fit_in_memory_is_one_sentence(data, settings, monkeypatch):
    with pytest.raises(
        InputError, match=r"^training with --batch \d+ and --channels 8 does not fit in memory; give less"
    ):
        Trainer(replace(settings, batch=2**45), data, ONE).step(0.5)
    for error in (torch.OutOfMemoryError("CUDA out of memory."), MemoryError()):
        monkeypatch.setattr(Settings, "build", instead_of_building(error))
        with pytest.raises(InputError, match="--batch 32 and --channels 8 does not fit in memory"):
            early_trainer(settings, ONE, "plain")
    monkeypatch.setattr(Settings, "build", instead_of_building(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match=r"^shapes differ$"):
        early_trainer(settings, ONE, "plain")


def instead_of_building(error):
    def build(self):
        raise error

    return build


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_network_trains_as_a_plain_one(data, settings):
    settings = replace(settings, dropout=0.0, label_dim=0)
    losses = []
    for network in ("plain", "compiled"):
        trainer = Trainer(settings, replace(data, labels=None), ONE, network=network)
        for step in range(3):
            trainer.step((step + 1) / 4)
        losses.append(trainer.end_round().loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_network_is_told_of_the_augmentation_which_ends_with_the_run(data, settings):
    trainer = Trainer(replace(settings, augment=0.5), data, ONE)
    told = []
    trainer._model.model.map_augment.register_forward_hook(lambda module, arguments, result: told.append(arguments[0]))
    for progress in (0.0, 1.0):
        trainer.step(progress)
    at_first, at_last = told
    assert at_first.shape == at_last.shape == (settings.batch, 9)
    assert torch.all(at_first.any(dim=0))
    assert torch.all(at_last[:, 1:] == 0)  # flips remain
    assert Trainer(replace(settings, augment=0.0), data, ONE)._model.model.map_augment is None


def test_making_a_trainer_leaves_the_global_generator_alone(data, settings):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    Trainer(settings, data, ONE)
    assert torch.equal(torch.get_rng_state(), before)


def test_autocast_leaves_the_preconditioning_in_float32(settings):
    """The network's own numbers change, by bfloat16's rounding; with a network that gives 0, nothing does."""
    model = settings.build().eval().requires_grad_(False)
    x = 80 * torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.002, 0.5, 3.0, 80.0])
    labels = torch.tensor([0, 1, 0, 1])
    seen = {}

    def keep(module, arguments, result):
        seen.setdefault("label", []).append(arguments[0])
        seen.setdefault("embedding", []).append(result)

    model.model.map_noise.register_forward_hook(keep)
    final = model.model.dec["8x8_aux_conv"]
    torch.nn.init.normal_(final.weight)
    exact = model(x, sigma, labels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(x, sigma, labels)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()
    for first, second in seen.values():
        assert first.dtype == second.dtype == torch.float32
        assert torch.equal(first, second)
    torch.nn.init.zeros_(final.weight)
    exact = model(x, sigma, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x, sigma, labels), exact)


def test_bfloat16_trains_float32_weights(data, settings):
    trainer = Trainer(replace(settings, dtype="bfloat16"), data, ONE)
    exact = Trainer(settings, data, ONE)
    for each in (trainer, exact):
        for step in range(3):
            each.step((step + 1) / 100)
    assert all(tensor.dtype == torch.float32 for tensor in trainer.state()["network"].values())
    loss, other = trainer.end_round().loss, exact.end_round().loss
    assert loss != other
    assert loss == pytest.approx(other, rel=0.02)


def test_gradients_that_are_not_finite_become_zero_and_are_counted(data, settings):
    trainer = Trainer(settings, data, ONE)
    trainer.step(0.05)
    assert trainer.end_round().gradients_replaced == 0
    trainer.data.images.data = trainer.data.images.float().fill_(float("nan"))
    before = {name: tensor.clone() for name, tensor in trainer.state()["network"].items()}
    trainer.step(0.05)
    figures = trainer.end_round()
    parameters = sum(parameter.numel() for parameter in settings.build().parameters())
    assert 0 < figures.gradients_replaced <= parameters
    assert figures.loss != figures.loss
    after = trainer.state()["network"]
    assert all(tensor.isfinite().all() for tensor in after.values())
    # Adam's memory still moves them.
    assert any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_flat_gradients_are_those_of_plain_training(fused, layout):
    def train(flat):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
        model.to(memory_format=layout)
        gradients = FlatGradients(model.parameters()) if flat else None
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
        for _ in range(3):
            optimizer.zero_grad() if gradients is None else gradients.zero()
            model(torch.randn(2, 3, 8, 8)).square().mean().backward()
            if gradients is not None:
                assert gradients.gather(ONE) == 0
                assert gradients.flat.norm() > 0
            optimizer.step()
        return model.state_dict()

    plain, flat = train(False), train(True)
    for name, tensor in plain.items():
        torch.testing.assert_close(flat[name], tensor, rtol=0, atol=0)
