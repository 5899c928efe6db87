"""Solver names as plans write them, each with its class."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from restart_sampling.base.errors import InputError, did_you_mean
from restart_sampling.base.numbers import require_kind
from restart_sampling.sampling.solvers.multistep import (
    DEIS,
    IPNDM,
    AdamsBashforth,
    DPMSolverPlusPlus2M,
    DPMSolverPlusPlus3M,
)
from restart_sampling.sampling.solvers.predictor_corrector import SASolver, UniPC
from restart_sampling.sampling.solvers.protocol import Solver
from restart_sampling.sampling.solvers.single_step import DPMSolver2, DPMSolver3, Euler, Heun, Midpoint
from restart_sampling.sampling.solvers.stochastic import DDIM, SDEDPMSolverPlusPlus2M

SOLVERS: dict[str, Callable[[], Any]] = {
    "euler": Euler,
    "heun": Heun,
    "midpoint": Midpoint,
    "dpm2": DPMSolver2,
    "dpm3": DPMSolver3,
    "ab": AdamsBashforth,
    "ipndm": IPNDM,
    "deis": DEIS,
    "dpmpp_2m": DPMSolverPlusPlus2M,
    "dpmpp_3m": DPMSolverPlusPlus3M,
    "unipc": UniPC,
    "ddim": DDIM,
    "ddpm": lambda: DDIM(eta=1.0),
    "sde_dpmpp_2m": SDEDPMSolverPlusPlus2M,
    "sa": SASolver,
}


def make_solver(text: str) -> Solver:
    """Makes the solver that a plan names: `heun`, or with settings after colons, `ddim:eta=0.5`, `sa:tau=0.5:high=50`.

    The settings are the fields of the solver's class.

    Raises:
        InputError: no solver of this name, no such setting of it, one twice, or a value out of its range.
    """
    require_kind("the solver", text, str, "its name, such as 'heun'")
    name, *settings = text.split(":")
    if name not in SOLVERS:
        meant = did_you_mean(name.replace("+", "p"), SOLVERS)
        raise InputError(f"solver '{name}' does not exist; available: {', '.join(SOLVERS)}{meant}")
    solver = SOLVERS[name]()
    types: dict[str, Any] = {entry.name: entry.type for entry in fields(solver)}
    values: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in types:
            raise InputError(f"solver {name} has no setting '{setting}'; its settings: {', '.join(types) or 'none'}")
        if key in values:
            raise InputError(f"solver {name} has {key} twice; give it once")
        try:
            values[key] = types[key](value)
        except ValueError:
            raise InputError(f"solver {name}: '{setting}' is not a number; write {key}=NUMBER") from None
    made: Solver = replace(solver, **values)
    return made
