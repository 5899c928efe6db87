"""Stochastic solvers: DDIM/DDPM and SDE-DPM-Solver++(2M); SA-Solver is in predictor_corrector.

They land lower than the step's end, and the loop adds the noise up to it, of PFGM++'s kind where the model is one. A
step to level 0 adds none.
"""

from dataclasses import dataclass
from math import sqrt
from typing import ClassVar

from torch import Tensor

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import real_number
from restart_sampling.sampling.move import Move
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.integrals import DataForm, first_order
from restart_sampling.sampling.solvers.multistep import DPMSolverPlusPlus2M
from restart_sampling.sampling.solvers.protocol import Denoise, SolverDefaults, evaluate


@dataclass(frozen=True)
class DDIM(SolverDefaults):
    """First order, one evaluation a step, eta times DDPM's noise; `ddim:eta=0.5`. With eta = 0 it is Euler.

    With eta = 1 it is DDPM (Ho et al. 2020, the smaller of its variances), k-diffusion's ancestral Euler and the
    first-order exponential integrator of the reverse SDE, all of which are one step: `ddpm`.

    Attributes:
        eta: from 0 to 1.

    Raises:
        InputError: eta out of range.

    Source: Song et al. 2021 (arXiv 2010.02502), equation 16.
    """

    name: ClassVar[str] = "ddim"
    order: ClassVar[int] = 1
    eta: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= real_number("ddim:eta", self.eta) <= 1:
            raise InputError(f"ddim:eta={self.eta:g} is out of range; give eta from 0 (ODE) to 1 (DDPM)")

    def landing(self, move: Move, process: Process = VE) -> float:
        """Returns the level from which eta times the posterior's noise leads to move.then."""
        if self.eta == 0:
            return move.then
        low, high = process.ratio(move.then), process.ratio(move.now)
        return process.level(low * sqrt(1 - self.eta**2 * (1 - (low / high) ** 2)))

    def step(
        self, denoise: Denoise, x: Tensor, move: Move, memory: None = None, process: Process = VE
    ) -> tuple[Tensor, None]:
        """Follows the ODE to the landing."""
        return first_order(process, x, evaluate(denoise, x, move.now), move.now, self.landing(move, process)), None


@dataclass(frozen=True)
class SDEDPMSolverPlusPlus2M(DPMSolverPlusPlus2M):
    """SDE-DPM-Solver++(2M): DPM-Solver++(2M) for the reverse SDE, one evaluation a step.

    Source: Lu et al. 2022 (arXiv 2211.01095), with the published weights.
    """

    name: ClassVar[str] = "sde_dpmpp_2m"
    form: ClassVar[DataForm] = DataForm(tau=1.0)

    def landing(self, move: Move, process: Process = VE) -> float:
        """Returns a level below move.then, but for level 0."""
        return self.form.landing(process, move.now, move.then)
