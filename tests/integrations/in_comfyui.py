"""Runs the nodes in ComfyUI itself, on models that are exact denoisers of N(1, 0.5²): python in_comfyui.py COMFYUI.

COMFYUI is a checkout of ComfyUI, whose requirements are installed, but for torchvision and torchaudio, beside
restart-sampling. No weights are needed. Prints what was checked; ends with code 1 at the first that is not right.
"""

import asyncio
import contextlib
import importlib
import io
import json
import sys
import types
from pathlib import Path

import torch
import transformers.utils  # noqa: F401  before the stand-ins, which it would take for the packages

COMFYUI = sys.argv[1]
NODES = Path(__file__).parents[2] / "integrations" / "comfyui"
MEAN, STD, SHAPE = 1.0, 0.5, (6, 4, 64, 64)


def stand_in(name, **members):
    """Puts an empty module where an import of no use here would fail."""
    try:
        importlib.import_module(name)
    except ImportError:
        sys.modules[name] = module = types.ModuleType(name)
        module.__dict__.update(members)


sys.argv[1:] = ["--cpu", "--preview-method", "latent2rgb"]
sys.path.insert(0, COMFYUI)
stand_in("torchvision", transforms=None)
stand_in("torchvision.transforms")
stand_in("torchaudio")

import comfy.options

comfy.options.enable_args_parsing()

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling as kinds
import comfy.sample
import comfy.samplers
import comfy.supported_models_base
import comfy.utils
import comfyui_version
import execution
import nodes
from comfy.comfy_types import IO

import restart_sampling as rs
from restart_sampling.kdiffusion import sample_restart
from restart_sampling.sampling.solvers.by_name import SOLVERS


class Network(torch.nn.Module):
    """Predicts what makes a model's denoiser exact, whatever it predicts: its denoiser is linear in the prediction."""

    dtype = torch.float32

    def __init__(self, model_sampling):
        super().__init__()
        self.sampling, self.calls = [model_sampling], 0

    def forward(self, x, timesteps, transformer_options=None, **_):
        self.calls += 1
        [sampling], sigma = self.sampling, transformer_options["sigmas"][0]
        state = x / sampling.calculate_input(sigma, torch.ones_like(x))
        zero, one = torch.zeros_like(state), torch.ones_like(state)
        alpha, std = (sampling.noise_scaling(sigma, *pair).flatten()[0] for pair in ((zero, one), (one, zero)))
        gain = alpha * STD**2 / (alpha**2 * STD**2 + std**2)
        x0 = MEAN + gain * (state - alpha * MEAN)
        at_0 = sampling.calculate_denoised(sigma, zero, state)
        return (x0 - at_0) / (sampling.calculate_denoised(sigma, one, state) - at_0)


class ScaledCONST(kinds.CONST):
    """A flow whose noise is not of std 1, which newer versions have of their own."""

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        return super().noise_scaling(sigma, 1.7 * noise, latent_image)


SCHEDULES = {
    "EPS": (kinds.EPS, kinds.ModelSamplingDiscrete, {}),
    "v": (kinds.V_PREDICTION, kinds.ModelSamplingDiscrete, {}),
    "v, zero SNR": (kinds.V_PREDICTION, kinds.ModelSamplingDiscrete, {"zsnr": True}),
    "EDM": (kinds.EDM, kinds.ModelSamplingContinuousEDM, {"sigma_data": 0.5}),
    "v, continuous": (kinds.V_PREDICTION, kinds.ModelSamplingContinuousEDM, {}),
    "CONST": (kinds.CONST, kinds.ModelSamplingDiscreteFlow, {}),
    "CONST, shift 3": (kinds.CONST, kinds.ModelSamplingDiscreteFlow, {"shift": 3.0}),
    "CONST, shift 0.01": (kinds.CONST, kinds.ModelSamplingDiscreteFlow, {"shift": 0.01}),  # sigma_max is 1 + 1e-6
    "CONST, Flux": (kinds.CONST, kinds.ModelSamplingFlux, {}),
    "CONST, scaled noise": (ScaledCONST, kinds.ModelSamplingDiscreteFlow, {}),
    "Cosmos": (kinds.COSMOS_RFLOW, kinds.ModelSamplingCosmosRFlow, {}),
}


def exact(name):
    """A MODEL of ComfyUI around the exact denoiser."""
    kind, schedule, settings = SCHEDULES[name]
    config = comfy.supported_models_base.BASE({"disable_unet_model_creation": True})
    config.sampling_settings, config.latent_format = settings, comfy.latent_formats.SD15()
    if name == "CONST, Flux":
        config.latent_format = comfy.latent_formats.Flux()
        config.latent_format.shift_factor = 0.0
    config.latent_format.scale_factor = 1.0
    model = comfy.model_base.BaseModel(config, device="cpu")
    model.model_sampling = type("ModelSampling", (schedule, kind), {})(config)
    model.diffusion_model = Network(model.model_sampling)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


CONDITIONING = [[torch.zeros(1, 1, 1), {}]]


def node(name, **inputs):
    """Runs a node of either of ComfyUI's kinds."""
    kind = nodes.NODE_CLASS_MAPPINGS[name]
    if hasattr(kind, "define_schema"):
        return kind.execute(**inputs).result
    return getattr(kind(), kind.FUNCTION)(**inputs)


def scheduled(model, scheduler, steps, denoise=1.0):
    return node("BasicScheduler", model=model, scheduler=scheduler, steps=steps, denoise=denoise)[0]


def sample(model, sampler, sigmas, latent=None, seed=0, advanced=False, add_noise=True):
    """Runs SamplerCustom or SamplerCustomAdvanced; returns the samples."""
    channels = model.model.latent_format.latent_channels
    latent = latent or {"samples": torch.zeros(SHAPE[0], channels, *SHAPE[2:])}
    inputs = {"sampler": sampler, "sigmas": sigmas, "latent_image": latent}
    if advanced:
        [noise] = node("RandomNoise", noise_seed=seed) if add_noise else node("DisableNoise")
        [guider] = node("BasicGuider", model=model, conditioning=CONDITIONING)
        return node("SamplerCustomAdvanced", noise=noise, guider=guider, **inputs)[0]["samples"]
    inputs |= {"positive": CONDITIONING, "negative": CONDITIONING, "cfg": 1.0}
    return node("SamplerCustom", model=model, add_noise=add_noise, noise_seed=seed, **inputs)[0]["samples"]


def check(what, holds, shown=""):
    print(f"{'ok' if holds else 'WRONG':6}{what}  {shown}", flush=True)
    if not holds:
        raise SystemExit(1)


def check_moments(what, x, mean=MEAN, std=STD):
    near = abs(x.mean() - mean) <= 0.02 * mean and abs(x.std() - std) <= 0.02 * std
    check(what, bool(near), f"mean {x.mean():.4f}, std {x.std():.4f}")


def progress():
    """Records what the progress bar shows from here on."""
    seen = []

    def hook(value, total, preview, **_):
        seen.append((value, total, preview is not None))
        comfy.model_management.throw_exception_if_processing_interrupted()  # as ComfyUI's server does here

    comfy.utils.set_progress_bar_global_hook(hook)
    return seen


def check_models():
    for name in SCHEDULES:
        model = exact(name)
        is_flow = name.startswith("CONST")
        text = "40 [6,2,0.3,0.6] [5,1,0.05,0.2]" if is_flow else "40 [6,2,0.1,0.6] [5,1,0.5,2]"
        for solver in ("heun", "sde_dpmpp_2m"):
            sampler, sigmas, *_, nfe = node("RestartPlan", model=model, plan=f"{text} solver={solver}", denoise=1.0)
            before, seen = model.model.diffusion_model.calls, progress()
            x = sample(model, sampler, sigmas, advanced=solver != "heun")
            check_moments(f"{name}: {text} {solver}", x)
            calls = model.model.diffusion_model.calls - before
            check("  progress", [each[:2] for each in seen] == [(k + 1, calls) for k in range(nfe)], f"{calls} calls")
            check("  previews", all(preview for *_, preview in seen))


def without_comfyui(process, sigmas, solver, restart_solver=None):
    """Samples along the same sigmas by the package alone: what first-order solvers miss is theirs."""
    path = rs.NoisePath.through(sigmas.tolist())
    denoiser = rs.GaussianMixture(torch.full((1, 4096), MEAN, dtype=torch.float64), STD, process=process)
    x = torch.randn(24, 4096, dtype=torch.float64) * process.std(path.levels[0])
    return rs.follow(denoiser, x, path, rs.make_solver(solver), rs.make_solver(restart_solver or solver), process)


def check_solvers():
    for name, process, restarts in (("EPS", rs.VE, "[6,2,0.1,0.6]"), ("CONST, shift 3", rs.FLOW, "[6,2,0.3,0.6]")):
        model = exact(name)
        falling = scheduled(model, "simple", 40, 1.0)
        [sigmas] = node("RestartSigmas", model=model, sigmas=falling, restarts=restarts)
        check(f"{name}: sigmas", len(sigmas) == 41 + 2 * 6, f"{len(sigmas)}")
        for solver in SOLVERS:
            [sampler] = node("RestartSampler", solver=solver, restart_solver="as solver", s_noise=1.0)
            alone = without_comfyui(process, sigmas, solver)
            what = f"{name}: simple with {restarts}, {solver}"
            check_moments(what, sample(model, sampler, sigmas), alone.mean(), alone.std())
        [sampler] = node("RestartSampler", solver="sa", restart_solver="heun", s_noise=1.0, settings="tau=0.5, p=2")
        alone = without_comfyui(process, sigmas, "sa:tau=0.5:p=2", "heun")
        check_moments("  sa:tau=0.5:p=2, heun", sample(model, sampler, sigmas), alone.mean(), alone.std())
        _, explanation, nfe = node("RestartPath", model=model, sampler=sampler, sigmas=sigmas)
        check("  NFE", nfe == 40 + 2 * 10 and f"NFE        {nfe} =" in explanation, f"{nfe}")


def check_seeds():
    for name in ("EPS", "CONST"):
        model = exact(name)
        sampler, sigmas, *_ = node("RestartPlan", model=model, plan="12 [4,2,0.3,0.6]", denoise=1.0)
        first = sample(model, sampler, sigmas, seed=2**64 - 5)
        torch.randn(3)
        check(f"{name}: same seed", torch.equal(first, sample(model, sampler, sigmas, seed=2**64 - 5)))
        check(
            "  in both sampling nodes",
            torch.equal(first, sample(model, sampler, sigmas, seed=2**64 - 5, advanced=True)),
        )
        check("  another seed", not torch.equal(first, sample(model, sampler, sigmas, seed=2**64 - 6)))
        quiet = {"latent": {"samples": torch.randn(SHAPE)}, "add_noise": False}
        added = [sample(model, sampler, sigmas, seed=seed, **quiet) for seed in (1, 2)]
        check("  noise of the rises is from the seed", not torch.equal(*added))
        check("  and of each image", not torch.equal(added[0][0], added[0][1]))


def check_image_to_image():
    for name in ("EPS", "v", "EDM", "CONST", "CONST, Flux"):
        model = exact(name)
        channels = model.model.latent_format.latent_channels
        shape = SHAPE[0], channels, *SHAPE[2:]
        data = MEAN + STD * torch.randn(shape, generator=torch.Generator().manual_seed(9))
        kept = []
        for denoise in (0.1, 0.5, 0.9):
            out = node("RestartPlan", model=model, plan="18 [4,1,0.1,0.5] [4,2,0.3,0.9]", denoise=denoise)
            check(f"{name}: denoise {denoise} begins lower", max(out[1]) == out[1][0])
            x = sample(model, *out[:2], latent={"samples": data})
            check_moments("  ", x)
            kept.append(torch.corrcoef(torch.stack([x.flatten(), data.flatten()]))[0, 1].item())
        check(
            "  keeps the less the more",
            kept[0] > kept[1] > kept[2],
            "correlation " + ", ".join(f"{k:.2f}" for k in kept),
        )
        falling = scheduled(model, "karras", 20, 0.4)
        [sigmas] = node("RestartSigmas", model=model, sigmas=falling, restarts="[8,1,0.1,5]")
        [sampler] = node("RestartSampler", solver="heun", restart_solver="as solver", s_noise=1.0)
        check_moments("  BasicScheduler's denoise", sample(model, sampler, sigmas, latent={"samples": data}))


def check_inpainting():
    mask = torch.zeros(1, *SHAPE[2:])
    mask[..., 32:] = 1.0
    for name in ("EPS", "v", "CONST"):
        model = exact(name)
        known = 3.0 + torch.randn(SHAPE, generator=torch.Generator().manual_seed(9))
        for solver in ("heun", "midpoint", "sde_dpmpp_2m", "unipc"):
            plan = f"60 [6,1,0.1,0.5] [6,2,0.3,0.9] solver={solver}{' rho=2' * (name == 'CONST')}"
            out = node("RestartPlan", model=model, plan=plan, denoise=1.0)
            x = sample(model, *out[:2], latent={"samples": known, "noise_mask": mask})
            off = (x - known)[..., :32].abs().max()
            check(f"{name}: {solver} keeps what is not masked", bool(off < 1e-4), f"off by {off:.1e}")
            check_moments("  and fills the mask", x[..., 32:])
        [soft] = node("DifferentialDiffusion", model=model)
        x = sample(soft, *out[:2], latent={"samples": known, "noise_mask": mask})
        check("  differential diffusion runs", bool(torch.isfinite(x).all()))


def check_interrupt():
    model = exact("CONST")
    out = node("RestartPlan", model=model, plan="24 [4,1,0.1,0.5]", denoise=1.0)
    comfy.model_management.interrupt_current_processing()
    progress()
    try:
        sample(model, *out[:2])
        stopped = False
    except comfy.model_management.InterruptProcessingException:
        stopped = True
    check("interrupt stops", stopped and model.model.diffusion_model.calls == 1, "after the call that was under way")


def check_two_parts():
    for name in ("EPS", "CONST"):
        model = exact(name)
        plan = "40 [6,2,0.3,0.6] solver=sde_dpmpp_2m" + " rho=2" * (name == "CONST")
        sampler, sigmas, *_ = node("RestartPlan", model=model, plan=plan, denoise=1.0)
        rise = (sigmas[1:] > sigmas[:-1]).nonzero()[0].item()
        for at in (5, rise, rise + 3, len(sigmas) - 1):
            high, low = node("SplitSigmas", sigmas=sigmas, step=at)
            x = sample(model, sampler, high, advanced=True)
            x = sample(model, sampler, low, latent={"samples": x}, add_noise=False, advanced=True, seed=1)
            check_moments(f"{name}: in two parts, split at {at} of {len(sigmas) - 1}", x)


def check_k_diffusion():
    """The package's own function, as a KSAMPLER."""
    for name in ("EPS", "CONST"):
        model = exact(name)
        sigmas = scheduled(model, "karras", 30, 1.0)
        options = {"restart_list": {0.3: [6, 2, 2.0] if name == "EPS" else [6, 2, 0.6]}}
        if name == "CONST":
            try:
                sample(model, comfy.samplers.KSAMPLER(sample_restart, options), sigmas)
                refused = False
            except rs.InputError as error:
                refused = "give process=FLOW" in str(error)
            check("sample_restart refuses a flow that is not named", refused)
            options["process"] = rs.FLOW
        check_moments(
            f"{name}: sample_restart", sample(model, comfy.samplers.KSAMPLER(sample_restart, options), sigmas)
        )


class Loader:
    """In place of files: an exact model, and texts and images that cost nothing."""

    RETURN_TYPES, FUNCTION = ("MODEL", "CLIP", "VAE"), "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"ckpt_name": ("STRING",)}}

    def load(self, ckpt_name):
        clip = types.SimpleNamespace(tokenize=str, encode_from_tokens_scheduled=lambda tokens: CONDITIONING)
        vae = types.SimpleNamespace(
            decode=lambda samples: samples[:, :3].movedim(1, -1),
            encode=lambda pixels: pixels.movedim(-1, 1)[:, [0, 1, 2, 0], ::8, ::8],
        )
        return exact("CONST, Flux" if "flux" in ckpt_name else "EPS"), clip, vae


class LoadedImage:
    RETURN_TYPES, FUNCTION = ("IMAGE", "MASK"), "load"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("STRING",)}}

    def load(self, image):
        return torch.ones(1, 512, 512, 3), torch.ones(1, 512, 512)


class Shown:
    """Keeps what is shown or saved."""

    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "show", True
    seen: list = []  # noqa: RUF012

    @classmethod
    def INPUT_TYPES(cls):
        return {"optional": {"images": ("IMAGE",), "source": (IO.ANY,), "filename_prefix": ("STRING",)}}

    def show(self, images=None, source=None, filename_prefix=""):
        self.seen.append(source if images is None else images)
        return {}


def prompt_of(workflow):
    """What ComfyUI's page sends of a workflow."""
    links = {link: [str(source), output] for link, source, output, *_ in workflow["links"]}
    prompt = {}
    for each in workflow["nodes"]:
        inputs = {entry["name"]: links[entry["link"]] for entry in each["inputs"]}
        values = [value for value in each["widgets_values"] if value != "fixed"]
        groups = nodes.NODE_CLASS_MAPPINGS[each["type"]].INPUT_TYPES()
        widgets = [name for kind in ("required", "optional") for name in groups.get(kind, {}) if name not in inputs]
        inputs |= zip(widgets, values, strict=False)
        prompt[str(each["id"])] = {"class_type": each["type"], "inputs": inputs}
    return prompt


def check_workflows():
    """ComfyUI finds them valid and executes them."""
    stand_ins = {"CheckpointLoaderSimple": Loader, "LoadImage": LoadedImage}
    nodes.NODE_CLASS_MAPPINGS |= stand_ins | dict.fromkeys(("SaveImage", "PreviewImage", "PreviewAny"), Shown)
    server = types.SimpleNamespace(client_id=None, last_node_id=None, send_sync=lambda *_: None)
    for file in sorted((NODES / "example_workflows").glob("*.json")):
        prompt = prompt_of(json.loads(file.read_text()))
        valid, error, outputs, errors = asyncio.run(execution.validate_prompt("1", prompt, None))
        check(f"{file.name} is valid", valid and not errors, error or errors or "")
        Shown.seen.clear()
        run = execution.PromptExecutor(server)
        run.execute(prompt, "1", {}, outputs)
        errors = [message for message in run.status_messages if message[0] == "execution_error"]
        check("  and runs", run.success, errors or "")
        *_, text = sorted(Shown.seen, key=lambda each: isinstance(each, str))
        check("  and says what it does", "NFE" in text, text.splitlines()[-1])
    inputs = {"model": ["1", 0], "plan": "18 [3]", "denoise": 1.0}
    prompt["99"] = {"class_type": "RestartPlan", "inputs": inputs}
    prompt["100"] = {"class_type": "PreviewAny", "inputs": {"source": ["99", 3]}}
    *_, errors = asyncio.run(execution.validate_prompt("1", prompt, None))
    check("a bad plan is refused before the run", "99" in errors and "has 1 entries" in str(errors["99"]["errors"]))


def main():
    lists = list(comfy.samplers.SAMPLER_NAMES), list(comfy.samplers.SCHEDULER_NAMES)
    asyncio.run(nodes.init_builtin_extra_nodes())
    loaded = asyncio.run(nodes.load_custom_node(str(NODES)))
    check(f"ComfyUI {comfyui_version.__version__} loads the nodes", loaded)
    check(
        "its lists of samplers are as before", lists == (comfy.samplers.SAMPLER_NAMES, comfy.samplers.SCHEDULER_NAMES)
    )
    for part in (
        check_models, check_solvers, check_seeds, check_image_to_image, check_inpainting, check_interrupt,
        check_two_parts, check_k_diffusion, check_workflows,
    ):  # fmt: skip
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            part()


if __name__ == "__main__":
    main()
