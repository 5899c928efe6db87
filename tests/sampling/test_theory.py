"""What theory says of solvers and noise, measured on exact denoisers."""

import math

import pytest
import torch

import restart_sampling as rs
from exact import RungeKutta4, gaussian, mixture
from restart_sampling.sampling.levels import power_grid

DATA_STD = 0.5


@pytest.mark.parametrize(("process", "high", "low"), [(rs.VE, 3.0, 0.2), (rs.FLOW, 1.0, 0.2)], ids=["VE", "FLOW"])
@pytest.mark.parametrize("solver", [rs.Euler(), rs.Heun()])
def test_convergence_order_between_two_positive_levels(solver, process, high, low):
    denoise = mixture(process)
    x = denoise.draw(256, high, torch.Generator().manual_seed(0))

    def fall(steps, with_solver):
        path = rs.ode_path(power_grid(steps + 1, high, low, rho=3.0))
        return rs.follow(denoise, x, path, with_solver, process=process)

    exact = fall(512, RungeKutta4())
    counts = (64, 128, 256)
    errors = [(fall(steps, solver) - exact).norm().item() for steps in counts]
    order = math.log(errors[0] / errors[-1]) / math.log(counts[-1] / counts[0])
    assert order == pytest.approx(solver.order, abs=0.1)


def test_heun_on_a_gaussian_follows_the_exact_flow():
    """For data N(0, s²) the flow is x(sigma) = x(sigma_max) sqrt((s² + sigma²) / (s² + sigma_max²))."""
    denoise = gaussian(DATA_STD)
    x = rs.GaussianNoise(range(8)).start((4,), 80.0)
    out = rs.follow(denoise, x, rs.ode_path(rs.karras_levels(512)))
    torch.testing.assert_close(out, x * DATA_STD / math.hypot(DATA_STD, 80.0), rtol=2e-3, atol=1e-6)


def moments_hold(x, std):
    """Mean, variance and fourth moment of 20,000 x N values against N(0, std²), in standard errors of the sample."""
    unit = x.flatten() / std
    expected = {1: (0, 1), 2: (1, 2), 4: (3, 96)}
    return all(
        abs(unit.pow(power).mean().item() - moment) < 4 * math.sqrt(variance / len(unit))
        for power, (moment, variance) in expected.items()
    )


@pytest.mark.parametrize("process", [rs.VE, rs.FLOW], ids=["VE", "FLOW"])
@pytest.mark.parametrize(("points", "holds"), [(30, True), (3, False)])
def test_restart_keeps_the_distribution_of_an_exact_sampler(points, holds, process):
    """From exact samples at t_min, K restarts with enough steps give exact samples again; two coarse steps do not."""
    t_min, t_max = (0.3, 3.0) if process is rs.VE else (0.2, 0.9)
    denoise = gaussian(DATA_STD, process=process)
    x = denoise.draw(20_000, t_min, torch.Generator().manual_seed(1))
    interval = rs.RestartInterval(points, 3, t_min, t_max)
    # The main fall into t_min has no length to speak of, so that only the restart can change the distribution.
    path = rs.restart_path([process_top(process), t_min], [interval])
    restart = rs.NoisePath(tuple(move for move in path.moves if move.restart))
    out = rs.follow(denoise, x, restart, process=process, perturb=rs.GaussianNoise(range(20_000), process=process))
    std = math.hypot(process.alpha(t_min) * DATA_STD, process.std(t_min))
    assert moments_hold(x, std)
    assert moments_hold(out, std) == holds


def process_top(process):
    return 80.0 if process is rs.VE else 1.0


@pytest.mark.parametrize("D", [16, 2048])
def test_pfgmpp_noise_has_the_variance_of_theory(D):
    """E[move²] = (D (high² - low²) + 2 low²) / (D - 2) a coordinate: with s the part of z along v_D, the move is
    m v_N with E[m²] = D (high² - low²) + 2 E[s²], E[s²] = low², and E[v_N²] = 1 / (D - 2)."""
    low, high, count, images = (1.0, 1.5, 16, 20_000) if D == 16 else (1.0, 1.5, 640, 500)
    noise = rs.PFGMppNoise(range(images), D=D)
    move = noise(torch.zeros(images, count, dtype=torch.float64), low, high)
    gaussian = high**2 - low**2
    exact = (D * gaussian + 2 * low**2) / (D - 2)
    square = move.pow(2).mean(dim=1)
    error = square.std().item() / math.sqrt(images)
    assert abs(square.mean().item() - exact) < 4 * error
    assert abs(move.mean().item()) < 4 * math.sqrt(exact / move.numel())
    # The ratio to a Gaussian-like move of the same D, 1 + 2 r_min² / (D r-move²): plain to see at 16, gone at 2048.
    ratio = square.mean().item() * (D - 2) / (D * gaussian)
    assert (ratio > 1.05) == (D == 16)


@pytest.mark.parametrize("D", [16, 2048])
def test_pfgmpp_starts_with_the_norm_of_its_prior(D):
    """r sqrt(BetaPrime(N/2, D/2)): the squared norm has mean sigma² D N / (D - 2)."""
    sigma, count, images = (80.0, 48, 20_000) if D == 16 else (80.0, 1920, 1000)
    squared = rs.PFGMppNoise(range(images), D=D).start((count,), sigma).pow(2).sum(dim=1)
    error = squared.std().item() / math.sqrt(images)
    assert abs(squared.mean().item() - sigma**2 * D * count / (D - 2)) < 4 * error


@pytest.mark.parametrize(("points", "holds"), [(30, True), (3, False)])
def test_pfgmpp_restart_keeps_the_distribution_at_large_dimension(points, holds):
    """At D = 2048 the noise is all but Gaussian, so that exact samples stay exact under a Gaussian's denoiser."""
    t_min, t_max = 0.3, 3.0
    denoise = gaussian(DATA_STD, 160)  # many numbers for each of the few images, as each takes 4096 for its noise
    x = denoise.draw(500, t_min, torch.Generator().manual_seed(1))
    path = rs.restart_path([80.0, t_min], [rs.RestartInterval(points, 3, t_min, t_max)])
    restart = rs.NoisePath(tuple(move for move in path.moves if move.restart))
    out = rs.follow(denoise, x, restart, perturb=rs.PFGMppNoise(range(500), D=2048))
    assert moments_hold(out, math.hypot(DATA_STD, t_min)) == holds


@pytest.mark.parametrize("count", [1, 2, 4])
def test_each_mean_of_a_mixture_has_a_weight(count):
    with pytest.raises(
        rs.InputError, match=rf"log_weights has the shape \[{count}\]; give one for each of the 3 means"
    ):
        rs.GaussianMixture(torch.zeros(3, 2), 0.3, torch.zeros(count))


def test_mixture_denoiser_is_the_posterior_mean():
    """E[x0 | x] minimises the squared error: no small change of the answer does better on exact pairs."""
    for process, level in ((rs.VE, 0.7), (rs.FLOW, 0.4)):
        data = mixture(process)
        generator = torch.Generator().manual_seed(3)
        x0 = data.draw(200_000, generator=generator)
        n = torch.randn(x0.shape, generator=generator, dtype=torch.float64)
        x = process.alpha(level) * x0 + process.std(level) * n
        residual = x0 - data(x, torch.full((len(x),), level, dtype=torch.float64))
        # The residual is uncorrelated with every function of x.
        for feature in (torch.ones_like(x), x, x**2, torch.sin(3 * x)):
            product = (residual * feature).flatten()
            assert abs(product.mean().item()) < 4 * product.std().item() / math.sqrt(len(product))


def test_flow_denoiser_knows_nothing_at_pure_noise():
    data = mixture(rs.FLOW)
    x = torch.randn(5, 3, dtype=torch.float64)
    weights = torch.softmax(data.log_weights, 0)
    torch.testing.assert_close(data(x, torch.ones(5, dtype=torch.float64)), (weights @ data.means).expand(5, 3))
