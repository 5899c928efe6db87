"""Every sampler_*.npz, outputs of the original sampler on an exact mixture denoiser, through the public API."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import restart_sampling as rs
from restart_sampling.sampling.pfgmpp import pfgmpp_move

GOLDEN = Path(__file__).parents[1] / "golden"


class Recorder:
    """A denoiser that notes the levels it is called at."""

    def __init__(self, denoise):
        self.denoise, self.levels = denoise, []

    def __call__(self, x, sigma):
        assert sigma.dtype == torch.float64
        assert sigma.shape == x.shape[:1]
        self.levels.append(sigma[0].item())
        return self.denoise(x, sigma)


def load(name):
    with np.load(GOLDEN / f"sampler_{name}.npz") as file:
        data = {key: torch.from_numpy(file[key]) for key in file.files if key != "config"}
        config = json.loads(str(file["config"]))
    means = data["mixture_means"].reshape(-1, *data["latents"].shape[1:])
    mixture = rs.GaussianMixture(means, config["mixture"]["std"], data["mixture_logw"])
    return data, config, Recorder(mixture)


def check(data, config, plan, denoise, x, perturb):
    path = plan.path(sigma_min=0.002, sigma_max=80.0)
    out = rs.follow(denoise, x, path, perturb=perturb)
    assert path.nfe(rs.Heun()) == config["nfe"] == len(denoise.levels)
    torch.testing.assert_close(torch.tensor(denoise.levels), data["model_levels"].float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(out, data["out"], rtol=0, atol=1e-5)
    return path


@pytest.mark.parametrize("name", ["ode18", "edm_sde32", "cifar_vp_43", "cifar_vp_43_gamma", "imagenet_67"])
def test_gaussian(name):
    data, config, denoise = load(name)
    plan = rs.Plan(
        config["steps"],
        tuple(rs.RestartInterval(*entry) for entry in config["plan"]),
        churn=config["S_churn"],
        gamma=config["restart_gamma"],
        s_min=config["S_min"],
        s_max=config["S_max"],
    )
    draws = iter(data["noise"])

    def replay(x, low, high):
        return x + config["S_noise"] * (high**2 - low**2) ** 0.5 * next(draws)

    path = check(data, config, plan, denoise, data["latents"] * plan.levels()[0], replay)
    rises = torch.tensor([(rise.now, rise.then) for rise in path.rises], dtype=torch.float64).reshape(-1, 2)
    torch.testing.assert_close(rises, data["rises"], rtol=1e-6, atol=0)
    assert next(draws, None) is None


def test_pfgmpp():
    data, config, denoise = load("pfgmpp_43")
    plan = rs.Plan(config["steps"], tuple(rs.RestartInterval(*entry) for entry in config["plan"]))
    draws = iter(zip(data["z_normal"], data["dir_normal"], strict=True))

    def replay(x, low, high):
        z, direction = next(draws)
        return pfgmpp_move(x, low, high, z, direction, s_noise=config["S_noise"])

    check(data, config, plan, denoise, data["latents"], replay)
    assert next(draws, None) is None
