"""Each solver against an independent implementation on the same levels: diffusers' schedulers, k-diffusion's samplers.

diffusers' schedulers get our levels in place of their own and the exact denoiser's answer; their state is the
variance-preserving one, x / sqrt(1 + sigma²), which exponential integrators do not notice. k-diffusion's outputs were
written by tests/golden/make_k_diffusion.py. DEIS, SA-Solver and iPNDM of diffusers divide by level 0, and are compared
before the last step.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import restart_sampling as rs
from exact import mixture, solver_by_name
from restart_sampling.sampling.solvers.predictor_corrector import SASolver

# diffusers warns of its own deprecated options, and torch of how diffusers makes arrays.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]

LEVELS = rs.karras_levels(12, 0.05, 20.0)
DENOISE = mixture()
X = DENOISE.draw(16, LEVELS[0], torch.Generator().manual_seed(0))
NOISES = torch.randn(len(LEVELS), *X.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
GOLDEN = Path(__file__).parents[1] / "golden" / "solver_k_diffusion.npz"


def replay():
    """A perturb that adds NOISES in order."""
    draws = iter(NOISES)
    return lambda x, low, high: x + (high**2 - low**2) ** 0.5 * next(draws)


def ours(solver, levels, steps=None):
    path = rs.NoisePath(rs.ode_path(levels).moves[:steps])
    return rs.follow(DENOISE, X, path, solver, perturb=replay())


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def assert_close(a, b):
    difference = relative(a, b)
    print(f"relative difference {difference:.0e}")  # pytest -rP lists them
    assert difference < 1e-5


def scheduled(scheduler, levels, steps=None, solver_types=None, noisy=False):
    """Where so many steps (default: all) of a diffusers scheduler lead from X, on our levels."""
    sigmas = torch.tensor(levels, dtype=torch.float64)
    scheduler.set_timesteps(len(levels) - 1)
    scheduler.sigmas, scheduler.timesteps = sigmas, torch.arange(len(levels) - 1)
    scheduler.set_begin_index(0)
    scale = (1 + sigmas**2).sqrt()
    x = X / scale[0]
    for index, sigma in enumerate(sigmas[:-1][:steps]):
        if solver_types:
            scheduler.register_to_config(solver_type=solver_types[index % len(solver_types)])
        x0 = DENOISE(x.double() * scale[index], sigma.expand(len(x)))
        more = {"variance_noise": NOISES[index]} if noisy else {}
        x = scheduler.step(x0, torch.tensor(index), x.double(), **more).prev_sample
    return x * scale[index + 1]


DATA = {"prediction_type": "sample"}
ABOVE_ZERO = LEVELS[:-1]
DPMPP = [
    ("dpmpp_2m", "DPMSolverMultistepScheduler", {"solver_order": 2}),
    ("dpmpp_3m_published", "DPMSolverMultistepScheduler", {"solver_order": 3, "solver_type": "heun"}),
]
UNIPC = [
    ("unipc:p=1", "UniPCMultistepScheduler", {"solver_order": 1}),
    ("unipc:p=2", "UniPCMultistepScheduler", {"solver_order": 2}),
    ("unipc:p=3", "UniPCMultistepScheduler", {"solver_order": 3}),
]
DEIS = [
    ("deis:order=2", "DEISMultistepScheduler", {"solver_order": 2}),
    ("deis:order=3", "DEISMultistepScheduler", {"solver_order": 3}),
]


@pytest.mark.parametrize(
    ("name", "scheduler", "settings", "steps"),
    [*((*each, None) for each in [*DPMPP, *UNIPC]), *((*each, -1) for each in DEIS)],
)
def test_multistep_solvers_equal_diffusers(diffusers, name, scheduler, settings, steps):
    """With lower orders in the last steps, as diffusers has them by default for so few steps."""
    made = getattr(diffusers, scheduler)(**DATA, **settings)
    assert_close(ours(solver_by_name(name), LEVELS, steps), scheduled(made, LEVELS, steps))


@pytest.mark.parametrize(("name", "scheduler", "settings"), [*DPMPP, *UNIPC, *DEIS])
def test_full_order_to_a_positive_level_equals_diffusers(diffusers, name, scheduler, settings):
    made = getattr(diffusers, scheduler)(**DATA, **settings)
    made.register_to_config(lower_order_final=False, final_sigmas_type="sigma_min")
    assert_close(ours(solver_by_name(name), ABOVE_ZERO), scheduled(made, ABOVE_ZERO))


def test_our_third_order_is_not_the_published_one(diffusers):
    made = diffusers.DPMSolverMultistepScheduler(**DATA, solver_order=3, solver_type="heun")
    assert relative(ours(solver_by_name("dpmpp_3m"), LEVELS), scheduled(made, LEVELS)) > 1e-3


def test_sde_dpm_solver_equals_diffusers_with_the_same_noise(diffusers):
    made = diffusers.DPMSolverMultistepScheduler(**DATA, algorithm_type="sde-dpmsolver++", solver_order=2)
    assert_close(ours(solver_by_name("sde_dpmpp_2m"), LEVELS), scheduled(made, LEVELS, noisy=True))


@dataclass(frozen=True)
class CoarseSASolver(SASolver):
    """With the weights that the authors' script and diffusers have for two values: the slope for half the step²."""

    def moments(self, form, process, move, count):
        moments = form.moments(process, move.now, move.then, count)
        if count == 2:
            h = form.clock(process, move.then) - form.clock(process, move.now)
            moments[1] = process.alpha(self.landing(move, process)) * (1 + form.tau**2) * h**2 / 2
        return moments


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
def test_sa_solver_equals_diffusers_with_the_same_noise(diffusers, monkeypatch, p, tau):
    draws = iter(NOISES)
    monkeypatch.setattr("diffusers.schedulers.scheduling_sasolver.randn_tensor", lambda *args, **settings: next(draws))
    made = diffusers.SASolverScheduler(
        **DATA, predictor_order=p, corrector_order=p + 1, tau_func=lambda level: torch.tensor(tau)
    )
    solver = CoarseSASolver(p=p, tau=tau, low=0.0, high=100.0)
    assert_close(ours(solver, LEVELS, -1), scheduled(made, LEVELS, -1))


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_equals_diffusers_with_the_same_noise(diffusers, eta):
    steps = len(LEVELS) - 1
    made = diffusers.DDIMScheduler(num_train_timesteps=steps, prediction_type="sample", clip_sample=False)
    made.set_timesteps(steps)
    made.alphas_cumprod = 1 / (1 + torch.tensor(LEVELS[-2::-1], dtype=torch.float64) ** 2)
    x = X * made.alphas_cumprod[-1].sqrt()
    for index, level in enumerate(LEVELS[:-1]):
        x0 = DENOISE(x * (1 + level**2) ** 0.5, torch.full((len(x),), level, dtype=torch.float64))
        noise = NOISES[index] if eta else None
        x = made.step(x0, steps - 1 - index, x, eta=eta, variance_noise=noise).prev_sample
    assert_close(ours(solver_by_name(f"ddim:eta={eta}"), LEVELS), x)


def test_ipndm_equals_diffusers(diffusers):
    made = diffusers.IPNDMScheduler()
    sigmas = torch.tensor(LEVELS, dtype=torch.float64)
    made.alphas, made.betas = 1 / (1 + sigmas**2).sqrt(), sigmas / (1 + sigmas**2).sqrt()
    made.ets = []
    made.timesteps = torch.arange(len(LEVELS) - 1)
    made.set_begin_index(0)
    x = X * made.alphas[0]
    for index, sigma in enumerate(sigmas[:-2]):
        x_ve = x / made.alphas[index]
        noise = (x_ve - DENOISE(x_ve, sigma.expand(len(x)))) / sigma
        # The scheduler makes the noise from the velocity of its process.
        x = made.step((noise - x * made.betas[index]) / made.alphas[index], torch.tensor(index), x).prev_sample
    assert_close(ours(solver_by_name("ipndm"), ABOVE_ZERO), x / made.alphas[-2])


@pytest.mark.parametrize(
    ("name", "types"), [("dpm2", ["midpoint", "midpoint"]), ("dpm3", ["midpoint", "heun", "midpoint"])]
)
def test_singlestep_dpm_solvers_equal_diffusers(diffusers, name, types):
    """diffusers takes the stages' levels from the grid: give it a grid that has them."""
    order, ends = len(types), rs.karras_levels(6, 0.05, 20.0)[:-1]
    levels = [ends[0]]
    for now, then in pairwise(ends):
        levels += [now * (then / now) ** (stage / order) for stage in range(1, order)] + [then]
    made = diffusers.DPMSolverSinglestepScheduler(
        prediction_type="sample", algorithm_type="dpmsolver", solver_order=order, final_sigmas_type="sigma_min"
    )
    set_timesteps = made.set_timesteps

    def with_whole_steps(count):
        set_timesteps(count)
        made.order_list = [*range(1, order + 1)] * (len(ends) - 1)

    made.set_timesteps = with_whole_steps
    out = rs.follow(DENOISE, X, rs.ode_path(ends), solver_by_name(name))
    assert_close(out, scheduled(made, levels, solver_types=types))


@pytest.mark.parametrize(
    "name",
    [
        "euler",
        "heun",
        "dpm2",
        "dpm3",
        "ab:order=4",
        "dpmpp_2m",
        "dpmpp_3m_published",
        "sde_dpmpp_2m",
        "ddim:eta=0.5",
        "ddpm",
    ],
)
def test_solvers_equal_k_diffusion(name):
    with np.load(GOLDEN) as file:
        golden = torch.from_numpy(file[name])
        np.testing.assert_array_equal(file["x"], X)
        np.testing.assert_allclose(file["levels"], LEVELS, rtol=1e-14)
        np.testing.assert_array_equal(file["noises"], NOISES)
    # Its multistep Adams goes to level 0 at full order, where ours is Euler's.
    levels = ABOVE_ZERO if name.startswith("ab") else LEVELS
    # It keeps the full order up to the step to 0.
    falls = tuple(rs.Move(now, then) for now, then in pairwise(levels))
    out = rs.follow(DENOISE, X, rs.NoisePath(falls), solver_by_name(name), perturb=replay())
    assert_close(out, golden)
