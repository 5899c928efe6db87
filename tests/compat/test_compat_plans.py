"""Plans, presets and the numbers of a seed are what they were in version 0.1.0."""

import json
from itertools import count

import numpy as np
import pytest
import torch
from old_files import FILES, MODELS, expected

import restart_sampling as rs
from restart_sampling.kdiffusion import sample_restart

STATES = dict(np.load(FILES / "states.npz"))
PLANS, PRESETS = expected("plans/plans"), expected("plans/presets")
GONE = "10 solver=dpmpp_3m_published"  # diffusers has it; of order 2, and here for comparison only


def explained(run, *arguments) -> dict:
    code, stdout, stderr = run(*["plan", *map(str, arguments), "--json"])
    assert code == 0, stderr
    return json.loads(stdout)


def check_plan(found: dict, recorded: dict) -> None:
    assert (found["plan"], found["nfe"]) == (recorded["plan"], recorded["nfe"])
    levels = recorded.get("levels", [])
    # math.pow and math.exp differ by their last digit between machines.
    assert found["levels"][: len(levels)] == pytest.approx(levels, rel=1e-12)


def test_a_solver_that_is_gone_is_named():
    assert GONE in PLANS
    with pytest.raises(rs.InputError, match=r"solver 'dpmpp_3m_published' does not exist; available: .*dpmpp_3m"):
        rs.Plan.parse(GONE)


@pytest.mark.parametrize("text", [text for text in PLANS if text != GONE])
def test_a_plan_means_what_it_meant(text, run):
    recorded = PLANS[text]
    check_plan(explained(run, text), recorded)
    plan = rs.Plan.parse(text)
    assert str(plan) == recorded["plan"]
    assert rs.Plan.parse(recorded["plan"]) == plan  # this text is in manifests and results


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_fits_a_model_as_it_did(name, copied, run):
    """Limits of the model, and the table of an iDDPM model, move the levels."""
    found = explained(run, "6 [3,1,0.5,2]", "--model", copied("models") / f"models/{name}.safetensors")
    check_plan(found, expected("plans/models")[name])


def test_all_presets_are_there_and_mean_what_they_meant(run):
    for name, recorded in PRESETS.items():
        preset = rs.PRESETS[name]
        assert str(rs.Plan.parse(preset.plan)) == str(rs.Plan.parse(name)) == recorded["plan"]
        assert (preset.name, preset.checkpoint, preset.nfe) == (name, recorded["checkpoint"], recorded["nfe"])
        assert preset.fid == recorded["fid"]
        check_plan(explained(run, name), recorded)


def mixture() -> rs.GaussianMixture:
    return rs.GaussianMixture(torch.from_numpy(STATES["means"]), std=float(STATES["std"]))


@pytest.mark.parametrize("name", sorted(key.removesuffix(".plan") for key in STATES if key.endswith(".plan")))
def test_the_numbers_of_a_seed_are_what_they_were(name):
    """In float64, where machines differ in the last digits only."""
    plan = rs.Plan.parse(str(STATES[f"{name}.plan"]))
    path = plan.path(sigma_min=0.002, sigma_max=80.0)
    seeds = STATES["seeds"].tolist()
    noise = (
        rs.PFGMppNoise(seeds, D=128, s_noise=plan.s_noise)
        if name == "pfgmpp"
        else rs.GaussianNoise(seeds, s_noise=plan.s_noise)
    )
    start = noise.start((2, 4, 4), path.levels[0])
    np.testing.assert_allclose(
        start.numpy(), STATES["pfgmpp.start" if name == "pfgmpp" else "heun.start"], rtol=1e-10, atol=1e-10
    )
    end = rs.follow(mixture(), start, path, *plan.solvers, perturb=noise)
    np.testing.assert_allclose(end.numpy(), STATES[f"{name}.end"], rtol=1e-9, atol=1e-9)


def test_the_sampler_of_k_diffusion_ends_where_it_did():
    net, draws = mixture(), count()
    end = sample_restart(
        lambda x, sigma: net(x, sigma.expand(len(x))),
        torch.from_numpy(STATES["kdiffusion.start"]),
        torch.from_numpy(STATES["kdiffusion.sigmas"]),
        disable=True,
        restart_list={0.7: [3, 2, 4.0]},
        noise_sampler=lambda low, high: torch.from_numpy(STATES["kdiffusion.noise"][next(draws)]),
    )
    assert next(draws) == len(STATES["kdiffusion.noise"])
    np.testing.assert_allclose(end.numpy(), STATES["kdiffusion.end"], rtol=1e-9, atol=1e-9)
