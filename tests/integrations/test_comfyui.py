"""The nodes for ComfyUI, on small stand-ins of what they use of it; `in_comfyui.py` runs them in ComfyUI itself."""

import importlib.util
import inspect
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import comfy_stand_in as stand_in
import pytest
import torch
from matplotlib.figure import Figure

import restart_sampling as rs

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
KINDS = {"VE": stand_in.EPS, "FLOW": stand_in.CONST, "scaled FLOW": stand_in.ScaledCONST}
RESTARTS = {"VE": "[6,2,0.1,0.6] [6,1,0.5,3]", "FLOW": "[6,2,0.3,0.6]", "scaled FLOW": "[6,2,0.3,0.6]"}
SHAPE = (64, 4, 8, 8)


@pytest.fixture(scope="module")
def pack():
    """The folder, loaded as ComfyUI loads it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "comfy", ModuleType("comfy"))
        patch.setitem(sys.modules, "comfy.samplers", stand_in)
        spec = importlib.util.spec_from_file_location("restart_nodes", FOLDER / "__init__.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "restart_nodes", module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def node(pack):
    def run(name, **inputs):
        kind = pack.NODE_CLASS_MAPPINGS[name]
        return getattr(kind(), kind.FUNCTION)(**inputs)

    return run


@pytest.fixture
def no_picture(monkeypatch):
    """An empty one, of a tenth of an inch: pictures take most of the time."""
    monkeypatch.setattr("restart_sampling.pictures.noise_paths.plot_path", lambda *_: Figure(figsize=(0.1, 0.1)))


def sample(sampler, sigmas, guider, latent=None, seed=0, add_noise=True, mask=None, callback=lambda *_: None):
    latent = torch.zeros(SHAPE) if latent is None else latent
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)) * add_noise
    return sampler.sample(guider, sigmas, {"model_options": {}, "seed": seed}, callback, noise, latent, mask, True)


def moments(x):
    return x.mean().item(), x.std().item()


EXPECTED = (pytest.approx(1.0, rel=0.02), pytest.approx(0.5, rel=0.02))


def test_schema(pack):
    assert pack.NODE_DISPLAY_NAME_MAPPINGS.keys() == pack.NODE_CLASS_MAPPINGS.keys()
    for kind in pack.NODE_CLASS_MAPPINGS.values():
        inputs = {name: entry for group in kind.INPUT_TYPES().values() for name, entry in group.items()}
        assert list(inspect.signature(getattr(kind, kind.FUNCTION)).parameters)[1:] == list(inputs)
        for name in inspect.signature(getattr(kind, "VALIDATE_INPUTS", lambda: True)).parameters:
            assert isinstance(inputs[name][0], list | str)
        if hasattr(kind, "VALIDATE_INPUTS"):
            assert kind.VALIDATE_INPUTS() is True  # of a text that comes from another node nothing is known yet
            defaults = {name: entry[1]["default"] for name, entry in inputs.items() if len(entry) > 1}
            wanted = inspect.signature(kind.VALIDATE_INPUTS).parameters
            assert kind.VALIDATE_INPUTS(**{name: defaults[name] for name in wanted}) is True


@pytest.mark.parametrize("process", KINDS)
@pytest.mark.parametrize("solver", ["heun", "sde_dpmpp_2m"])
def test_samples_are_those_of_the_data(node, process, solver):
    guider, seen = stand_in.Guider(KINDS[process]()), []
    plan = f"40 {RESTARTS[process]} solver={solver}"
    sampler, sigmas, picture, explanation, nfe = node("RestartPlan", model=guider, plan=plan, denoise=1.0)
    x = sample(sampler, sigmas, guider, callback=lambda *report: seen.append(report))
    assert moments(x) == EXPECTED
    # The progress bar counts calls of the model, each with its answer for the preview.
    assert guider.calls == nfe
    assert [(call, total) for call, _, _, total in seen] == [(call, nfe) for call in range(nfe)]
    assert all(denoised.shape == state.shape == SHAPE for _, denoised, state, _ in seen)
    assert f"NFE        {nfe} =" in explanation
    assert picture.ndim == 4
    assert picture.shape[::3] == (1, 3)
    assert 0 <= picture.min() < picture.max() <= 1
    # As the package alone samples it, but for the noise.
    path = rs.Plan.parse(plan).path(float(guider.model_sampling.sigma_min), 14.6146 if process == "VE" else 1.0)
    assert sigmas.tolist() == pytest.approx(path.levels, rel=1e-6)
    assert rs.NoisePath.through(sigmas.tolist()).nfe(*sampler.solvers) == nfe


@pytest.mark.usefixtures("no_picture")
def test_restarts_on_any_sigmas(node):
    guider = stand_in.Guider(stand_in.CONST())
    falling = torch.tensor([1.000001, *rs.power_grid(30, 0.97, 0.0, rho=2.0)])
    [sigmas] = node("RestartSigmas", model=guider, sigmas=falling, restarts="[6,2,0.3,0.6] rho=1")
    [sampler] = node("RestartSampler", solver="sa", restart_solver="heun", s_noise=1.0, settings="tau=0.5, p=2")
    assert sampler.extra_options == {"solver": "sa:tau=0.5:p=2", "restart_solver": "heun", "s_noise": 1.0}
    assert len(sigmas) == len(falling) + 2 * 6
    _, explanation, nfe = node("RestartPath", model=guider, sampler=sampler, sigmas=sigmas)
    assert nfe == 30 + 2 * 10
    assert "restart    2 x" in explanation
    x = sample(sampler, sigmas, guider)
    assert moments(x) == (EXPECTED[0], pytest.approx(0.5, rel=0.04))
    assert guider.calls == nfe
    with pytest.raises(rs.InputError, match="others do not follow rises"):
        node("RestartPath", model=guider, sampler=stand_in.KSAMPLER(None, {}, {}), sigmas=sigmas)


@pytest.mark.usefixtures("no_picture")
def test_noise_is_of_the_seed_the_image_and_the_part(node):
    guider = stand_in.Guider(stand_in.EPS())
    sampler, sigmas, *_ = node("RestartPlan", model=guider, plan="6 [3,1,0.3,0.6] s_noise=1.1", denoise=1.0)
    first = sample(sampler, sigmas, guider, seed=2**64 - 1)
    torch.randn(1)
    assert torch.equal(first, sample(sampler, sigmas, guider, seed=2**64 - 1))
    added = [sample(sampler, sigmas, guider, seed=seed, add_noise=False) for seed in (3, 4)]
    assert not torch.isclose(*added).any(dim=0).all()
    assert not torch.equal(added[0][0], added[1][0])
    assert not torch.equal(added[0][1], added[1][0])
    assert not torch.equal(added[0][0], added[0][1])
    [silent] = node("RestartSampler", solver="heun", restart_solver="as solver", s_noise=0.0)
    assert torch.equal(*(sample(silent, sigmas, guider, seed=seed, add_noise=False) for seed in (3, 4)))
    # An image of a batch has the noise that it has alone.
    few = sampler.sample(guider, sigmas, {"seed": 3}, lambda *_: None, torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8))
    torch.testing.assert_close(few, added[0][:2])


@pytest.mark.usefixtures("no_picture")
def test_a_path_in_two_parts_has_other_noise_in_each(node):
    """With one seed for both, as workflows have; the same noise twice gave std 0.546 for 0.5."""
    guider = stand_in.Guider(stand_in.EPS())
    plan = "40 [6,2,0.3,0.6] solver=sde_dpmpp_2m"
    sampler, sigmas, *_ = node("RestartPlan", model=guider, plan=plan, denoise=1.0)
    rise = (sigmas[1:] > sigmas[:-1]).nonzero()[0].item()
    between = sample(sampler, sigmas[: rise + 1], guider)
    x = sample(sampler, sigmas[rise:], guider, latent=between, add_noise=False)
    assert moments(x) == EXPECTED
    assert torch.equal(sample(sampler, sigmas[-1:], guider, latent=x), x)  # nothing is left to do


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize("process", KINDS)
def test_image_to_image(node, process):
    guider = stand_in.Guider(KINDS[process]())
    data = 1 + 0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(5))
    alike = []
    for denoise in (0.2, 0.8):
        plan = "20 [5,1,0.1,0.4] [5,1,0.3,0.9]"
        sampler, sigmas, *_ = node("RestartPlan", model=guider, plan=plan, denoise=denoise)
        assert max(sigmas) == sigmas[0] < 0.9 * guider.model_sampling.sigma_max
        full = rs.Plan(int(20 / denoise)).path(float(guider.model_sampling.sigma_min), min(14.6146, sigmas_top(guider)))
        assert sigmas[0].item() == pytest.approx(full.levels[-21], rel=1e-6)
        x = sample(sampler, sigmas, guider, latent=data)
        assert moments(x) == (EXPECTED[0], pytest.approx(0.5, rel=0.03))
        alike.append(torch.corrcoef(torch.stack([x.flatten(), data.flatten()]))[0, 1])
    assert alike[0] > alike[1] + 0.1
    # Sigmas of another scheduler that begin low: no restart rises above them, and one that begins there is left out.
    low = torch.tensor([0.5, 0.3, 0.1, 0.0])
    [sigmas] = node("RestartSigmas", model=guider, sigmas=low, restarts="[3,1,0.1,0.9] [3,1,0.45,0.8]")
    assert sigmas.tolist() == pytest.approx([0.5, 0.3, 0.1, 0.5, sigmas[4].item(), 0.1, 0.0])
    own = node("RestartPlan", model=guider, plan="4 grid=0.9/0.6/0.3/0.1/0 [3,1,0.1,0.9]", denoise=0.5)[1]
    assert own.tolist() == pytest.approx([0.3, 0.1, 0.3, own[3].item(), 0.1, 0.0])


def sigmas_top(guider):
    return min(float(guider.model_sampling.sigma_max), 1.0) if isinstance(guider.model_sampling, stand_in.CONST) else 80


@pytest.mark.usefixtures("no_picture")
@pytest.mark.parametrize("process", KINDS)
def test_inpainting_keeps_what_is_not_masked(node, process):
    guider = stand_in.Guider(KINDS[process]())
    known = 3 + torch.randn(SHAPE)
    mask = torch.zeros(SHAPE)
    mask[..., 4:] = 1
    for solver in ("midpoint", "ddpm"):
        plan = f"30 {RESTARTS[process]} solver={solver}"
        sampler, sigmas, *_ = node("RestartPlan", model=guider, plan=plan, denoise=1.0)
        x = sample(sampler, sigmas, guider, latent=known, mask=mask)
        torch.testing.assert_close(x[..., :4], known[..., :4], rtol=0, atol=1e-5)
        assert x[..., 4:].mean().item() == pytest.approx(1.0, rel=0.03)


@pytest.mark.usefixtures("no_picture")
def test_an_interrupt_stops(node):
    class Interrupted(Exception):  # noqa: N818
        pass

    def callback(call, *_):
        if call == 3:
            raise Interrupted

    guider = stand_in.Guider(stand_in.EPS())
    sampler, sigmas, *_ = node("RestartPlan", model=guider, plan="18 [3,2,0.06,0.3]", denoise=1.0)
    with pytest.raises(Interrupted):
        sample(sampler, sigmas, guider, callback=callback)
    assert guider.calls == 4


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("RestartPlan", {"plan": "18 [3]"}, "interval [3] has 1 entries"),
        ("RestartPlan", {"plan": "found.json"}, "is a file; give its text"),
        ("RestartSigmas", {"restarts": "18 [3,2,0.06,0.3]"}, "the steps are those of the sigmas"),
        ("RestartSigmas", {"restarts": "[3,2,0.06,0.3] solver=euler"}, "'solver=euler' is not of the sigmas"),
        ("RestartSigmas", {"restarts": "[3,2,0.06,0.3] s_noise=1.1"}, "'s_noise=1.1' is not of the sigmas"),
        ("RestartSigmas", {"restarts": "churn=3 steps=4"}, "'steps=4' is not of the restarts"),
        ("RestartSigmas", {"restarts": "grid=5/1/0"}, "'grid=5/1/0' is not of the restarts"),
        ("RestartSigmas", {"restarts": "[3,2,0.06]"}, "interval [3,2,0.06] has 3 entries"),
        ("RestartSampler", {"solver": "ddim", "settings": "eta=2"}, "ddim:eta=2 is out of range"),
        ("RestartSampler", {"solver": "heun", "settings": "p=2"}, "heun has no setting 'p=2'"),
    ],
)
def test_bad_input_is_refused_before_the_workflow_runs(pack, name, inputs, message):
    assert message in pack.NODE_CLASS_MAPPINGS[name].VALIDATE_INPUTS(**inputs)


def test_what_does_not_fit_the_model_is_refused(node):
    flow, ve = stand_in.Guider(stand_in.CONST()), stand_in.Guider(stand_in.EPS())
    falling = torch.linspace(1, 0, 11)
    for model, inputs, message in (
        (flow, {"plan": "18 [3,2,0.06,2]", "denoise": 1.0}, "t_max is above sigma_max"),
        (ve, {"plan": "18", "denoise": 0.0}, "denoise is 0; give a number above 0, up to 1"),
        (flow, {"sigmas": falling, "restarts": "[3,2,0.06,2]"}, "t_max is above sigma_max"),
        (flow, {"sigmas": falling.flip(0), "restarts": ""}, "the path ends with a rise"),
        (flow, {"sigmas": falling[:1], "restarts": ""}, "at least two levels"),
        (ve, {"sigmas": falling[None], "restarts": ""}, r"the sigmas have the shape \[1, 11\]; give one row"),
    ):
        with pytest.raises(rs.InputError, match=message):
            node("RestartPlan" if "plan" in inputs else "RestartSigmas", model=model, **inputs)

    class Cosine(stand_in.EPS):
        def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
            return torch.cos(sigma) * latent_image + torch.sin(sigma) * noise

    class Unnoised(stand_in.CONST):
        def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
            return latent_image

    for kind, message in (
        (Cosine, r"state at sigma 0.5 is 0.877583 data \+ 0.479426 noise"),
        (Unnoised, "and std rise"),
    ):
        with pytest.raises(rs.InputError, match=message):
            node("RestartPlan", model=stand_in.Guider(kind()), plan="18", denoise=1.0)


def test_the_folder_is_ready_for_the_registry(pack):
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text("utf-8"))
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["project"]["version"])
    assert project["tool"]["comfy"]["PublisherId"]
    assert project["project"]["dependencies"] == (FOLDER / "requirements.txt").read_text("utf-8").split("\n")[:-1]
    files = sorted((FOLDER / "example_workflows").glob("*.json"))
    assert len(files) == 3
    for file in files:
        workflow = json.loads(file.read_text("utf-8"))
        ours = [each for each in workflow["nodes"] if each["type"] in pack.NODE_CLASS_MAPPINGS]
        assert ours
        for each in ours:
            kind = pack.NODE_CLASS_MAPPINGS[each["type"]]
            assert tuple(output["type"] for output in each["outputs"]) == kind.RETURN_TYPES
            inputs = {name: entry for group in kind.INPUT_TYPES().values() for name, entry in group.items()}
            linked = {entry["name"] for entry in each["inputs"]}
            assert linked <= inputs.keys()
            assert len(each["widgets_values"]) == len(inputs) - len(linked)
