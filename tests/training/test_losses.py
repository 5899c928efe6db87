"""The losses against their theory: distributions of levels and noise, and what they make of known denoisers."""

from dataclasses import replace

import pytest
import torch
from scipy import stats

from restart_sampling.models.denoiser import EDMPrecond, VPPrecond
from restart_sampling.training.losses import PARAMETRIZATIONS, EDMLoss, VPLoss, unit_noise, weighted_error

COUNT = 20_000


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fits(sample, distribution):
    """By the Kolmogorov-Smirnov test; of a right one, one in a thousand does not."""
    return stats.kstest(sample.flatten().double().numpy(), distribution.cdf).pvalue > 1e-3


def silent(settings, parametrization, D=None):
    """A denoiser whose network gives 0, and its loss."""
    model = replace(settings, parametrization=parametrization, D=D).build().eval().requires_grad_(False)
    torch.nn.init.zeros_(model.model.dec["8x8_aux_conv"].weight)
    return model, PARAMETRIZATIONS[parametrization].loss(model)


def test_levels_of_edm(settings):
    model, loss = silent(settings, "edm")
    assert isinstance(model, EDMPrecond)
    assert isinstance(loss, EDMLoss)
    assert fits(loss.levels(COUNT, generator()).log(), stats.norm(-1.2, 1.2))


def test_levels_of_vp_are_those_of_uniform_times(settings):
    model, loss = silent(settings, "vp")
    assert isinstance(model, VPPrecond)
    assert isinstance(loss, VPLoss)
    sigma = loss.levels(COUNT, generator())
    assert fits(model.sigma_inv(sigma.double()), stats.uniform(1e-5, 1 - 1e-5))
    assert model.sigma_min * 0.99 < sigma.min()
    assert sigma.max() < model.sigma_max * 1.01


@pytest.mark.parametrize("parametrization", ["edm", "vp"])
def test_the_networks_own_target_weighs_the_same_at_each_level(parametrization, settings):
    model, loss = silent(settings, parametrization)
    sigma = torch.logspace(-2, 2, 50)
    torch.testing.assert_close(loss.weight(sigma) * model.coefficients(sigma).c_out ** 2, torch.ones(50))


@pytest.mark.parametrize("parametrization", ["edm", "vp"])
@pytest.mark.parametrize("level", [0.01, 0.5, 20.0])
def test_loss_of_a_network_that_gives_nothing_is_one(parametrization, level, settings):
    """D = c_skip y, and the data has the variance sigma_data²: EDM's choice of c_skip and c_out makes it 1."""
    model, loss = silent(settings, parametrization)
    images = 0.5 * torch.randn(256, 3, 8, 8, generator=generator(1))
    noise = unit_noise(images.shape, None, generator(2))
    errors = weighted_error(model, loss, images, torch.full((256,), level), noise, None)
    assert errors.shape == (256,)
    assert errors.mean() == pytest.approx(1, abs=0.03)  # five standard errors: sqrt(2 / 49152) each


def test_loss_of_a_network_that_gives_nothing_under_the_noise_of_pfgmpp(settings):
    """Its variance is D / (D - 2), that of a ratio of chi-squares."""
    D, level = 64, 0.5
    model, loss = silent(settings, "pfgmpp", D)
    images = 0.5 * torch.randn(4096, 3, 8, 8, generator=generator(1))
    noise = unit_noise(images.shape, D, generator(2))
    errors = weighted_error(model, loss, images, torch.full((4096,), level), noise, None)
    # At sigma = sigma_data: c_skip = 1/2 and weight = 2 / sigma_data².
    assert errors.mean() == pytest.approx(0.5 * D / (D - 2) + 0.5, abs=0.01)
    assert model.D == D


def test_minimiser_on_gaussian_data(settings):
    """The best denoiser is c_skip y (Wiener): of all k c_skip y, the loss is least at k = 1."""
    model, loss = silent(settings, "edm")
    images = 0.5 * torch.randn(2048, 3, 8, 8, generator=generator(1))
    sigma = loss.levels(2048, generator(2))
    noise = unit_noise(images.shape, None, generator(3))

    def mean_loss(k):
        return weighted_error(lambda y, s, *_: k * model(y, s), loss, images, sigma, noise, None).mean().item()

    below, at, above = mean_loss(0.9), mean_loss(1.0), mean_loss(1.1)
    least = 1 + 0.1 * (below - above) / (2 * (below - 2 * at + above))  # of the parabola through the three
    assert least == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(("shape", "D"), [((2, 1, 1), 1), ((3, 4, 4), 16), ((3, 4, 4), 128), ((1, 8, 8), 2048)])
def test_radius_of_pfgmpp(shape, D):
    """R² / r² ~ BetaPrime(N/2, D/2) with r = sqrt(D) at level 1."""
    noise = unit_noise((5000, *shape), D, generator())
    N = noise[0].numel()
    radius = noise.flatten(1).norm(dim=1)
    assert fits(radius**2 / D, stats.betaprime(N / 2, D / 2))
    assert not fits(radius**2 / D, stats.betaprime(1.2 * N / 2, D / 2))


def test_direction_of_pfgmpp_is_uniform():
    """The first coordinate of a uniform direction in three dimensions is uniform (Archimedes), whatever the radius."""
    noise = unit_noise((COUNT, 3, 1, 1), 4, generator()).flatten(1)
    radius = noise.norm(dim=1)
    direction = noise[:, 0] / radius
    assert fits(direction, stats.uniform(-1, 2))
    assert fits(direction[radius > radius.median()], stats.uniform(-1, 2))


def test_pfgmpp_of_many_dimensions_is_gaussian():
    shape = (64, 3, 8, 8)
    gaussian = unit_noise(shape, None, generator())
    assert fits(gaussian, stats.norm())
    assert fits(unit_noise(shape, 2**16, generator(1)), stats.norm())
    torch.testing.assert_close(unit_noise(shape, 2**16, generator()), gaussian, rtol=0.02, atol=0)
    assert not fits(unit_noise(shape, 2, generator(1)), stats.norm())
