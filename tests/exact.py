"""Exact denoisers for the tests, and solvers that only tests need."""

from dataclasses import dataclass
from typing import ClassVar

import torch

import restart_sampling as rs
from restart_sampling.sampling.solvers.integrals import interpolation_weights
from restart_sampling.sampling.solvers.protocol import SolverDefaults, velocity

MEANS = torch.tensor([[1.0, 0.5, -0.8], [-1.0, 0.2, 0.4], [0.3, -1.2, 0.9]], dtype=torch.float64)
LOG_WEIGHTS = torch.tensor([0.1, -0.3, 0.4], dtype=torch.float64)


def mixture(process=rs.VE):
    """Three round Gaussians of std 0.3 in three dimensions."""
    return rs.GaussianMixture(MEANS, 0.3, LOG_WEIGHTS, process)


def gaussian(std=0.5, count=4, process=rs.VE):
    """N(0, std²) in `count` dimensions."""
    return rs.GaussianMixture(torch.zeros(1, count, dtype=torch.float64), std, process=process)


@dataclass(frozen=True)
class DPMSolverPP3MPublished(rs.DPMSolverPlusPlus3M):
    """DPM-Solver++(3M) as diffusers and k-diffusion have it: order 2.

    Their second difference of the data is half the second derivative, and enters with the weight of the whole.
    """

    name: ClassVar[str] = "dpmpp_3m_published"
    order: ClassVar[int] = 2
    values: ClassVar[int] = 3

    def weights(self, process, now, then, clocks):
        moments = self.form.moments(process, now, then, len(clocks))
        return interpolation_weights(clocks, [moment / 2 if k == 2 else moment for k, moment in enumerate(moments)])


@dataclass(frozen=True)
class RungeKutta4(SolverDefaults):
    """The classical method, of four calls a step, which the library does not have."""

    name: ClassVar[str] = "rk4"
    order: ClassVar[int] = 4
    calls: ClassVar[int] = 4

    def step(self, denoise, x, move, memory=None, process=rs.VE):
        size, middle = move.then - move.now, (move.now + move.then) / 2
        first = velocity(denoise, x, move.now, process)
        if move.then == 0:
            return x + size * first, memory
        second = velocity(denoise, x + size / 2 * first, middle, process)
        third = velocity(denoise, x + size / 2 * second, middle, process)
        fourth = velocity(denoise, x + size * third, move.then, process)
        return x + size * (first + 2 * second + 2 * third + fourth) / 6, memory


def solver_by_name(name):
    """Also of the one that plans have no name for."""
    return DPMSolverPP3MPublished() if name == DPMSolverPP3MPublished.name else rs.make_solver(name)
