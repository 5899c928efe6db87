"""Writes solver_k_diffusion.npz: where k-diffusion's samplers lead on the levels, start and noise of our tests.

    python tests/golden/make_k_diffusion.py    # with k-diffusion 0.1.1.post1, torchdiffeq, torchsde and scipy installed

Its torchvision is only imported, never used here, so that an empty module does.
"""

import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "sampling"))
from test_independent_solvers import DENOISE, GOLDEN, LEVELS, NOISES, X


def k_diffusion_sampling():
    """The module alone: the package imports much that samplers do not need."""
    package = ModuleType("k_diffusion")
    package.__path__ = list(find_spec("k_diffusion").submodule_search_locations)
    sys.modules["k_diffusion"] = package
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["torchvision.transforms"].functional = sys.modules["torchvision.transforms.functional"]
    import k_diffusion.sampling

    return k_diffusion.sampling


def main():
    K = k_diffusion_sampling()
    sigmas = torch.tensor(LEVELS, dtype=torch.float64)

    def noise_sampler():
        draws = iter(NOISES)
        return lambda sigma, sigma_next: next(draws)

    def dpm_solver_3():
        """Its fixed-grid driver chooses orders by a rule of its own, so its step is called on our levels."""
        solver, x = K.DPMSolver(DENOISE), X
        for now, then in pairwise(sigmas[:-1]):
            x, _ = solver.dpm_solver_3_step(x, solver.t(now), solver.t(then))
        return DENOISE(x, sigmas[-2].expand(len(x)))

    def run(sampler, levels=sigmas, **settings):
        return sampler(DENOISE, X.clone(), levels, disable=True, **settings)

    outs = {
        "euler": run(K.sample_euler),
        "heun": run(K.sample_heun),
        "dpm2": run(K.sample_dpm_2),
        "dpm3": dpm_solver_3(),
        "ab:order=4": run(K.sample_lms, sigmas[:-1], order=4),
        "dpmpp_2m": run(K.sample_dpmpp_2m),
        "dpmpp_3m_published": run(K.sample_dpmpp_3m_sde, eta=0.0, noise_sampler=noise_sampler()),
        "sde_dpmpp_2m": run(K.sample_dpmpp_2m_sde, noise_sampler=noise_sampler()),
        "ddim:eta=0.5": run(K.sample_euler_ancestral, eta=0.5, noise_sampler=noise_sampler()),
        "ddpm": run(K.sample_euler_ancestral, noise_sampler=noise_sampler()),
    }
    np.savez_compressed(GOLDEN, x=X, levels=sigmas, noises=NOISES, **{name: out.numpy() for name, out in outs.items()})


if __name__ == "__main__":
    main()
