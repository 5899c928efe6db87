import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from restart_sampling.base.errors import InputError
from restart_sampling.models.ddpm import iDDPMPrecond
from restart_sampling.models.denoiser import NETWORKS, EDMPrecond, VEPrecond, VPPrecond
from restart_sampling.models.guidance import guided_by_class
from restart_sampling.models.preconditionings import DENOISERS

SMALL = {
    "img_resolution": 8,
    "img_channels": 3,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
}
SIGMA = torch.tensor([0.02, 0.3, 1.5, 40.0], dtype=torch.float64)
STATE = (
    torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    * SIGMA[:, None, None, None]
)
LABELS = torch.tensor([0, 3, 3, 4])


def small(name="EDMPrecond", **options):
    """A small denoiser with weights under which everything matters."""
    torch.manual_seed(0)
    model = DENOISERS[name](**SMALL, **options).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False)


EDM, VP, IDDPM = EDMPrecond(**SMALL), VPPrecond(**SMALL), iDDPMPrecond(**SMALL)

every_denoiser = pytest.mark.parametrize("name", DENOISERS)
every_network = pytest.mark.parametrize("network", ["SongUNet", "DhariwalUNet", "EDM2UNet"])


@given(st.floats(-10, 10), st.floats(0.05, 5))
def test_edm_coefficients_keep_unit_variance(log_sigma, sigma_data):
    EDM.sigma_data = sigma_data
    sigma = torch.tensor([math.exp(log_sigma)], dtype=torch.float64)
    c_skip, c_out, c_in, c_noise = (value.item() for value in EDM.coefficients(sigma))
    noisy = sigma.item() ** 2 + sigma_data**2
    # Input: c_in (y + n). Training target: (y - c_skip (y + n)) / c_out. [EDM, appendix B.6]
    assert c_in**2 * noisy == pytest.approx(1)
    assert ((1 - c_skip) * sigma_data) ** 2 + (c_skip * sigma.item()) ** 2 == pytest.approx(c_out**2)
    # c_skip is the one with which c_out is smallest.
    assert c_skip == pytest.approx(sigma_data**2 / noisy)
    assert c_noise == pytest.approx(log_sigma / 4, abs=1e-12)


@given(st.floats(1e-6, 1))
def test_vp_time_and_noise_level_are_inverse(t):
    time = torch.tensor([t], dtype=torch.float64)
    assert VP.sigma_inv(VP.sigma(time)).item() == pytest.approx(t, rel=1e-12)
    assert VP.sigma_inv(VP.sigma(time.float())).item() == pytest.approx(t, rel=1e-5)


def test_vp_coefficients():
    c_skip, c_out, c_in, c_noise = VP.coefficients(VP.sigma(torch.tensor([0.25, 1.0], dtype=torch.float64)))
    sigma = torch.tensor([math.sqrt(math.exp(0.5 * 19.9 * t**2 + 0.1 * t) - 1) for t in (0.25, 1.0)])
    torch.testing.assert_close(c_skip.float(), torch.ones(2))
    torch.testing.assert_close(c_out.float(), -sigma)
    torch.testing.assert_close(c_in.float(), 1 / (1 + sigma**2).sqrt())
    torch.testing.assert_close(c_noise.float(), torch.tensor([0.25, 1.0]) * 999)
    assert VP.sigma_max == pytest.approx(sigma[1].item())
    # To first order sigma² = beta_min t + (beta_d + beta_min²) t² / 2.
    assert VP.sigma_min**2 == pytest.approx(0.1 * 1e-5 + (19.9 + 0.01) / 2 * 1e-10, rel=1e-9)


def test_ve_coefficients():
    c_skip, c_out, c_in, c_noise = VEPrecond(**SMALL).coefficients(SIGMA)
    assert torch.equal(c_skip, torch.ones_like(SIGMA))
    assert torch.equal(c_in, torch.ones_like(SIGMA))
    assert torch.equal(c_out, SIGMA)
    torch.testing.assert_close(c_noise, (SIGMA / 2).log())


def test_iddpm_table():
    u = IDDPM.u.double()
    assert u.shape == (1001,)
    assert (u.diff() < 0).all()
    assert (IDDPM.sigma_min, IDDPM.sigma_max) == pytest.approx((u[-2].item(), u[0].item()), rel=1e-6)
    # Where no bound acts, 1 / (1 + u²) is proportional to alpha-bar [EDM, appendix C.3].
    alpha_bar = torch.sin(math.pi / 2 * torch.arange(1001, dtype=torch.float64) / 1000 / 1.008) ** 2
    scale = (1 + u**2) * alpha_bar / alpha_bar[-1]
    torch.testing.assert_close(scale[50:], torch.ones_like(scale[50:]), rtol=1e-5, atol=0)


@given(st.floats(-6, 10))
def test_iddpm_rounds_to_the_nearest_level(log_sigma):
    sigma = torch.tensor([math.exp(log_sigma)], dtype=torch.float64)
    rounded = IDDPM.round_sigma(sigma)
    assert rounded.dtype == sigma.dtype
    assert torch.equal(IDDPM.round_sigma(rounded), rounded)
    distance = min(abs(level - sigma.item()) for level in IDDPM.u.tolist())
    assert abs(rounded - sigma).item() <= distance + 1e-4 * sigma.item()  # the middle of two levels is that of float32
    assert IDDPM.u[999 - IDDPM.coefficients(sigma).c_noise.long()] == rounded


def test_iddpm_rounds_any_shape_and_dtype():
    sigma = torch.rand(2, 3, 1) * 80
    assert IDDPM.round_sigma(sigma).shape == sigma.shape
    assert IDDPM.round_sigma(sigma).dtype == torch.float32


@every_denoiser
def test_attributes(name):
    model = DENOISERS[name](label_dim=5, use_fp16=True, D=128, **SMALL)
    assert (model.resolution, model.channels, model.label_dim, model.D) == (8, 3, 5, 128)
    assert type(model.model) in NETWORKS.values()
    assert 0 <= model.sigma_min < model.sigma_max
    assert isinstance(model.sigma_min, float)
    assert DENOISERS[name](**SMALL).D is None
    if name not in ("iDDPMPrecond", "DDPMPrecond"):
        assert torch.equal(model.round_sigma(SIGMA), SIGMA)


@every_denoiser
@pytest.mark.parametrize("x_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma_dtype", [torch.float32, torch.float64])
def test_the_dtype_of_x_is_kept(name, x_dtype, sigma_dtype):
    model = small(name)
    out = model(STATE.to(x_dtype), SIGMA.to(sigma_dtype))
    assert out.dtype == x_dtype
    torch.testing.assert_close(out.double(), model(STATE, SIGMA), rtol=1e-4, atol=1e-4)


@every_denoiser
@every_network
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-5), (torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_the_network_runs_in_its_own_dtype(name, network, dtype, tolerance):
    model = small(name, model_type=network, label_dim=5)
    noisy = STATE / SIGMA[:, None, None, None]  # at level 1, where the network has much to say
    sigma = torch.ones_like(SIGMA)
    expected = model(noisy, sigma, LABELS)
    model.to(dtype)
    out = model(noisy, sigma, LABELS)
    assert out.dtype == torch.float64
    assert 0 < (out - expected).std() / expected.std() < tolerance


def test_tables_are_not_rounded_with_the_weights():
    model = small("iDDPMPrecond", model_type="SongUNet", embedding_type="fourier")
    u, freqs = model.u.clone(), model.model.map_noise.freqs.clone()
    model.to(torch.bfloat16)
    assert model.model.map_layer0.weight.dtype == torch.bfloat16
    assert torch.equal(model.u, u)
    assert torch.equal(model.model.map_noise.freqs, freqs)
    assert model.to("meta").u.is_meta


@every_network
def test_class_numbers_are_one_hot_labels(network):
    model = small(model_type=network, label_dim=5)
    by_number = model(STATE, SIGMA, LABELS)
    assert torch.equal(by_number, model(STATE, SIGMA, torch.eye(5)[LABELS]))
    assert torch.equal(model(STATE, SIGMA), model(STATE, SIGMA, torch.zeros(4, 5)))
    assert not torch.equal(by_number, model(STATE, SIGMA))


@every_network
def test_images_of_a_batch_do_not_mix(network):
    model = small(model_type=network, label_dim=5)
    alone = torch.cat([model(STATE[i : i + 1], SIGMA[i : i + 1], LABELS[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(model(STATE, SIGMA, LABELS), alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", ["SongUNet", "DhariwalUNet"])
def test_no_augmentation_is_the_zero_label(network):
    model = small(model_type=network, augment_dim=9)
    plain = model(STATE, SIGMA)
    assert torch.equal(model(STATE, SIGMA, augment_labels=torch.zeros(4, 9)), plain)
    assert not torch.equal(model(STATE, SIGMA, augment_labels=torch.ones(4, 9)), plain)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="unconditional"):
        small()(STATE, SIGMA, LABELS)
    with pytest.raises(InputError, match=r"\[4, 7\].*\[B, 5\]"):
        small(label_dim=5)(STATE, SIGMA, torch.zeros(4, 7))
    with pytest.raises(InputError, match="of type list; give a tensor"):
        small(label_dim=5)(STATE, SIGMA, [1, 2, 3, 4])
    for labels in (LABELS + 5, LABELS - 5, LABELS.float()):
        with pytest.raises(InputError, match=r"give class numbers, int64 \[B\], from 0 to 4"):
            small(label_dim=5)(STATE, SIGMA, labels)


def test_unknown_options_are_refused():
    with pytest.raises(InputError, match="model_type is 'DiT'; it can be one of SongUNet, DhariwalUNet"):
        EDMPrecond(model_type="DiT", **SMALL)
    with pytest.raises(TypeError, match="model_chanels"):
        EDMPrecond(model_chanels=8, **SMALL)


@pytest.mark.parametrize("labels", [LABELS, torch.eye(5)[LABELS]], ids=["numbers", "one-hot"])
@pytest.mark.parametrize("scale", [0.0, 0.5, 3.0])
def test_guidance_is_two_calls_in_one(labels, scale):
    model = small(label_dim=5)
    calls = []
    model.register_forward_hook(lambda _module, args, _out: calls.append(args[0].shape[0]))
    out = guided_by_class(model, labels, scale)(STATE, SIGMA)
    assert calls == [8]
    uncond, cond = model(STATE, SIGMA), model(STATE, SIGMA, labels)
    torch.testing.assert_close(out, uncond + scale * (cond - uncond), rtol=1e-5, atol=1e-5)


def test_scale_one_is_one_plain_call():
    model = small(label_dim=5)
    calls = []
    model.register_forward_hook(lambda _module, args, _out: calls.append(args[0].shape[0]))
    out = guided_by_class(model, LABELS)(STATE, SIGMA)
    assert calls == [4]
    assert torch.equal(out, model(STATE, SIGMA, LABELS))
    assert torch.equal(guided_by_class(model, None)(STATE, SIGMA), model(STATE, SIGMA))


def test_guidance_without_labels_is_refused():
    with pytest.raises(InputError, match=r"scale 2\.0 but no class labels"):
        guided_by_class(small(label_dim=5), None, 2.0)
    with pytest.raises(InputError, match="unconditional"):
        guided_by_class(small(), LABELS, 2.0)
