import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from restart_sampling.base.errors import InputError
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.dhariwal_unet import DhariwalUNet
from restart_sampling.models.layers import Resample, UNetBlock
from restart_sampling.models.preconditionings import DENOISERS
from restart_sampling.models.read_checkpoint import load_model
from restart_sampling.models.song_unet import SongUNet

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("network_*.npz"))
SMALL = {"model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [8]}


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem.removeprefix("network_"))
def golden(request):
    with np.load(request.param) as file:
        return {key: torch.from_numpy(file[key]) if key != "config" else json.loads(str(file[key])) for key in file}


def build(golden) -> Denoiser:
    config = golden["config"]
    return DENOISERS[config["class_name"]](**config["init_kwargs"]).eval()


def loaded(golden) -> Denoiser:
    model = build(golden)
    model.load_state_dict({key.removeprefix("state/"): golden[key] for key in golden if key.startswith("state/")})
    return model


def inputs(golden, dtype=torch.float32):
    labels = golden["labels"] if golden["labels"].numel() else None
    return golden["x"].to(dtype), golden["sigma"].to(dtype), labels


def randomize(model: torch.nn.Module) -> torch.nn.Module:
    """Weights with which no branch of the network is dead, as many are at initialisation."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def relative_error(given, expected):
    """The largest over the batch, each image by its own scale."""
    error, scale = (given.double() - expected.double()).abs(), expected.double().abs()
    return (error.amax((1, 2, 3)) / scale.amax((1, 2, 3))).max().item()


def test_there_are_five_golden_networks():
    assert len(GOLDEN) == 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_output(golden, dtype):
    with torch.no_grad():
        out = loaded(golden)(*inputs(golden, dtype))
    assert out.dtype == dtype
    assert relative_error(out, golden["out"]) < 5e-6


def test_golden_state_has_our_names_in_our_order(golden):
    # The order counts for the state of an optimizer, which knows parameters by number only.
    assert [f"state/{key}" for key in build(golden).state_dict()] == [key for key in golden if key.startswith("state/")]


def test_golden_range_of_noise_levels(golden):
    model, config = build(golden), golden["config"]
    # The golden sigma_min comes from float32 arithmetic, which is off by 2.4 % for VP and 0.05 % for iDDPM.
    rounding = {"VPPrecond": 0.03, "iDDPMPrecond": 1e-3}.get(config["class_name"], 0.0)
    assert model.sigma_min == pytest.approx(config["sigma_min"], rel=rounding)
    assert model.sigma_max == pytest.approx(config["sigma_max"], rel=1e-6)


def test_channels_last_changes_nothing(golden):
    model = loaded(golden)
    x, sigma, labels = inputs(golden)
    with torch.no_grad():
        expected = model(x, sigma, labels)
        model.to(memory_format=torch.channels_last)
        out = model(x.to(memory_format=torch.channels_last), sigma, labels)
    assert relative_error(out, expected) < 1e-5


def test_forward_never_reads_a_value_back(golden):
    x, sigma, labels = (None if value is None else value.to("meta") for value in inputs(golden))
    model = build(golden).to("meta")
    with torch.device("meta"):
        assert model(x, sigma, labels).shape == x.shape
        if labels is not None:
            assert model(x, sigma, labels.argmax(1)).shape == x.shape


def test_gradients_reach_every_parameter(golden):
    model = randomize(build(golden)).train()
    x, sigma, labels = inputs(golden)
    augment_dim = golden["config"]["init_kwargs"].get("augment_dim", 0)
    augment_labels = torch.randn(x.shape[0], augment_dim) if augment_dim else None
    model(x, sigma, labels, augment_labels).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.fixture(scope="module")
def bundled() -> Denoiser:
    return load_model("cifar10-small")


@torch.no_grad()
def test_bundled_model_denoises(bundled):
    torch.manual_seed(0)
    labels, noise = torch.arange(8), torch.randn(8, 3, 32, 32)
    # From noise alone the best guess is the mean of the class: dark or bright, but grey and smooth.
    guess = bundled(80 * noise, torch.full((8,), 80.0), labels)
    assert guess.abs().max() < 1
    assert guess.std() < 0.3
    # It takes most of a little noise away from a smooth image.
    image = F.interpolate(0.4 * torch.randn(8, 3, 3, 3), size=32, mode="bicubic")
    error = bundled(image + 0.2 * noise, torch.full((8,), 0.2), labels) - image
    assert error.std() < 0.06
    # Class labels matter, and no labels are the zero vector.
    sigma = torch.full((8,), 2.0)
    uncond = bundled(2 * noise, sigma)
    assert (bundled(2 * noise, sigma, labels) - uncond).std() > 0.01
    assert torch.equal(bundled(2 * noise, sigma, torch.zeros(8, 10)), uncond)


@pytest.mark.parametrize("embedding_type", ["positional", "fourier"])
@pytest.mark.parametrize("encoder_type", ["standard", "skip", "residual"])
@pytest.mark.parametrize("decoder_type", ["standard", "skip"])
@pytest.mark.parametrize("resample_filter", [(1, 1), (1, 3, 3, 1)], ids=["box", "tent"])
def test_every_variant_of_song_unet_runs(embedding_type, encoder_type, decoder_type, resample_filter):
    options = {**SMALL, "channel_mult": [1, 2, 2], "resample_filter": resample_filter}
    model = SongUNet(
        16, 3, 5, embedding_type=embedding_type, encoder_type=encoder_type, decoder_type=decoder_type, **options
    )
    randomize(model).train()
    out = model(torch.randn(2, 3, 16, 16), torch.tensor([-1.0, 2.0]), torch.zeros(2, 0))
    assert out.shape == (2, 5, 16, 16)
    out.square().mean().backward()
    assert all(parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("option", ["embedding_type", "encoder_type", "decoder_type"])
def test_unknown_variant_is_refused(option):
    with pytest.raises(InputError, match=f"{option} is 'cubic'; it can be one of .*standard|positional"):
        SongUNet(16, 3, 3, **{option: "cubic"})


@pytest.mark.parametrize("heads", [1, 3])
def test_attention_is_softmax_attention(heads):
    width = 4
    options = {"dropout": 0.0, "skip_scale": 1.0, "eps": 1e-5, "taps": (1, 1)}
    block = UNetBlock(24, 24, 8, heads=heads, project_skip=False, adaptive_scale=True, **options)
    randomize(block)
    x = torch.randn(2, 24, width, width)
    # Checkpoints order the outputs of qkv as head, channel, (query, key, value).
    qkv = block.qkv(block.norm2(x)).reshape(2, heads, 24 // heads, 3, width * width)
    q, k, v = (qkv[:, :, :, i] for i in range(3))
    weights = torch.einsum("bhcq,bhck->bhqk", q, k / (24 // heads) ** 0.5).softmax(dim=-1)
    expected = block.proj(torch.einsum("bhqk,bhck->bhcq", weights, v).reshape(x.shape))
    torch.testing.assert_close(block._attention(x), expected, rtol=1e-5, atol=1e-6)


def test_adm_has_a_head_for_every_64_channels():
    model = DhariwalUNet(16, 3, 3, **{**SMALL, "model_channels": 64})
    heads = {name: block.heads for name, block in [*model.enc.items(), *model.dec.items()] if "block" in name}
    assert {name for name, count in heads.items() if count} == {"8x8_block0", "8x8_block1"}
    assert model.dec["8x8_in0"].heads == model.dec["8x8_block0"].heads == 2


def test_box_filter_repeats_and_averages_pixels():
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(Resample("up", (1, 1))(x), F.interpolate(x, scale_factor=2, mode="nearest"))
    torch.testing.assert_close(Resample("down", (1, 1))(x), F.avg_pool2d(x, 2))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_resampling_keeps_a_constant(direction):
    out = Resample(direction, (1, 3, 3, 1))(torch.ones(1, 2, 8, 8))
    torch.testing.assert_close(out[:, :, 1:-1, 1:-1], torch.ones_like(out[:, :, 1:-1, 1:-1]))


@pytest.mark.parametrize("network", [SongUNet, DhariwalUNet])
def test_dropout_only_in_training(network):
    model = randomize(network(16, 3, 3, dropout=0.5, **SMALL))
    call = torch.randn(2, 3, 16, 16), torch.zeros(2), torch.zeros(2, 0)
    assert not torch.equal(model.train()(*call), model(*call))
    assert torch.equal(model.eval()(*call), model(*call))


@pytest.mark.parametrize("network", [SongUNet, DhariwalUNet])
def test_label_dropout_only_in_training(network):
    model = randomize(network(16, 3, 3, label_dim=4, dropout=0.0, label_dropout=1.0, **SMALL))
    x, noise, labels = torch.randn(4, 3, 16, 16), torch.zeros(4), torch.eye(4)
    none = model.eval()(x, noise, torch.zeros(4, 4))
    assert torch.equal(model.train()(x, noise, labels), none)
    assert not torch.equal(model.eval()(x, noise, labels), none)


def test_initial_networks_add_nothing_yet():
    torch.manual_seed(0)
    call = torch.randn(2, 3, 16, 16), torch.zeros(2), torch.eye(4)[:2]
    assert not DhariwalUNet(16, 3, 3, label_dim=4, **SMALL)(*call).any()
    assert 0 < SongUNet(16, 3, 3, label_dim=4, **SMALL)(*call).abs().max() < 1e-3


def test_initial_scales():
    torch.manual_seed(0)
    options = {"label_dim": 100, **SMALL, "model_channels": 64}
    song, adm = SongUNet(16, 3, 3, **options), DhariwalUNet(16, 3, 3, **options)
    layer = song.enc["8x8_block0"]
    assert layer.qkv.weight.std().item() == pytest.approx((0.2 * 2 / (128 + 3 * 128)) ** 0.5, rel=0.03)
    assert layer.conv0.weight.std().item() == pytest.approx((2 / (9 * 64 + 9 * 128)) ** 0.5, rel=0.03)
    assert not layer.conv0.bias.any()
    layer = adm.enc["8x8_block0"]
    assert layer.conv0.weight.std().item() == pytest.approx((1 / (3 * 9 * 64)) ** 0.5, rel=0.03)
    assert adm.map_label.weight.std().item() == pytest.approx(1.0, rel=0.03)
