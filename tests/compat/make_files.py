"""Made the files of version 0.1.0 in `files`, which later versions have to read and go on with.

It is here to tell how they were made, and reaches into the package as it was then: do not run it with a later one.

    PYTHONPATH=src:tests:tests/compat:tests/evaluation:tests/text_to_image python tests/compat/make_files.py [PART]...
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import old_files as old
import torch
from old_files import FILES, MODELS, words

import restart_sampling as rs
from restart_sampling.kdiffusion import sample_restart
from restart_sampling.models.checkpoint import Checkpoint, write_safetensors
from restart_sampling.models.denoiser import DENOISERS

HERE = Path()
"""Of the commands, whose paths are relative."""

# In a process that ends itself as a kill does, in the middle of a file whose name holds a text.
KILLED_IN_A_WRITE = """
import os, signal, sys
from pathlib import Path
import restart_sampling.images.block_store as block_store
from restart_sampling.cli import main

text = sys.argv.pop(1)


def kill_in_half(write):
    def half(path, content, *more):
        if text in path.name:
            write(path, content[: len(content) // 2], *more)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content, *more)

    return half


Path.write_bytes, Path.write_text = kill_in_half(Path.write_bytes), kill_in_half(Path.write_text)
add_entry = block_store.add_entry


def add(archive, name, content):
    if text in name:
        archive.fp.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add_entry(archive, name, content)


block_store.add_entry = add
main()
"""


def call(arguments: list[str]) -> str:
    """A command to its end; its standard output."""
    command = [sys.executable, "-m", "restart_sampling", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def kill(code: str, *arguments: str) -> None:
    """A command that ends itself."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    assert done.returncode == -9


def keep(*names: str) -> None:
    """Takes files from the current folder over."""
    for name in names:
        target = FILES / name
        if target.is_dir():
            shutil.rmtree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        if Path(name).is_dir():
            shutil.copytree(name, target)
        else:
            shutil.copy2(name, target)


def keep_json(name: str, content: object) -> None:
    (FILES / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


def models() -> None:
    """Networks with random weights, one a preconditioning, and what they answer."""
    small = {
        "img_resolution": 8,
        "img_channels": 3,
        "model_type": "SongUNet",
        "model_channels": 4,
        "channel_mult": [1],
        "num_blocks": 1,
        "attn_resolutions": [8],
    }
    fourier = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2}
    kinds = {
        "edm": ("EDMPrecond", {**small, "label_dim": 3}, None),
        "vp": ("VPPrecond", small, None),
        "ve": ("VEPrecond", {**small, **fourier, "resample_filter": [1, 3, 3, 1]}, None),
        "iddpm": ("iDDPMPrecond", {**small, "model_type": "DhariwalUNet", "label_dim": 3, "M": 100}, None),
        "pfgmpp": ("EDMPrecond", {**small, "label_dim": 3}, 128),
    }
    assert tuple(kinds) == MODELS
    Path("models").mkdir()
    answers = {}
    for number, (name, (class_name, arguments, D)) in enumerate(kinds.items()):
        torch.manual_seed(number)
        network = DENOISERS[class_name](**arguments, D=D)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        path = Path(f"models/{name}.safetensors")
        state = {key: tensor.half() if tensor.ndim > 1 else tensor for key, tensor in network.state_dict().items()}
        classes = ("cat", "dog", "frog") if name == "edm" else ()
        metadata = {"dataset": "none", "training": "none: random weights"}
        write_safetensors(
            Checkpoint(path, "safetensors", class_name, arguments, state, D, None, None, "", classes, metadata), path
        )
        model = rs.load_model(path)
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        sigma = model.round_sigma(torch.tensor([0.7, 12.0], dtype=torch.float64))
        labels = torch.tensor([0, 2]) if model.label_dim else None
        with torch.no_grad():
            answer = model(x, sigma, labels)
        answers |= {f"{name}.x": x, f"{name}.sigma": sigma, f"{name}.answer": answer}
        answers[f"{name}.limits"] = torch.tensor([model.sigma_min, model.sigma_max, model.D or 0], dtype=torch.float64)
    np.savez_compressed("answers.npz", **{key: value.numpy() for key, value in answers.items()})
    keep("models", "answers.npz")


def generate() -> None:
    """Folders and zips: finished, killed in the second of three blocks, and killed before the first."""
    shutil.copytree(FILES / "models", "models")
    Path("generate").mkdir()
    for kind in ("", ".zip"):
        outs = {state: HERE / f"generate/{state}{kind}" for state in ("finished", "killed", "begun")}
        call(old.generate(HERE, outs["finished"]))
        kill(KILLED_IN_A_WRITE, "000006.png", *old.generate(HERE, outs["killed"]))
        kill(KILLED_IN_A_WRITE, "manifest.json", *old.generate(HERE, outs["begun"]))
    keep("generate")


PLANS = (
    "18",
    "1",
    "32 churn=30 s_min=0.01 s_max=1 s_noise=1.007",
    "18 [3,2,0.06,0.30]",
    '18 {"0": [3, 2, 0.06, 0.30]}',
    "[3,2,0.06,0.30]",
    "36 [4,1,19.35,40.79] [6,6,0.06,0.30] gamma=0.05 s_min=0.01 s_max=1 s_noise=1.003",
    "cifar10-vp-43 s_noise=1.003",
    "imagenet64-edm-203",
    "18 [3,2,0.06,0.30] solver=dpmpp_2m",
    "18 [3,2,0.06,0.30] solver=ab:order=3 restart_solver=heun",
    "10 solver=ab",
    "10 solver=euler",
    "10 solver=midpoint",
    "10 solver=dpm2",
    "10 solver=dpm3 [3,1,0.06,1]",
    "10 solver=deis:order=3",
    "10 solver=ipndm",
    "10 solver=dpmpp_3m",
    "10 solver=dpmpp_3m_published",
    "10 solver=unipc:p=3",
    "10 solver=unipc:p=2 [3,2,0.5,2]",
    "10 solver=ddim:eta=0.5",
    "10 solver=ddim",
    "10 solver=ddpm",
    "10 solver=sde_dpmpp_2m",
    "10 solver=sa:p=3:tau=1",
    "10 solver=sa:p=2:tau=0.5:low=0.1:high=5",
    "10 grid=exponential",
    "10 grid=logsnr sigma_min=0.01 sigma_max=50",
    "10 grid=time [3,2,0.3,1]",
    "10 rho=5",
    "4 grid=80/20/5/1/0",
    "4 grid=80/20/5/1/0.1 [3,2,1,5]",
    "6 [3,2,1,5] [3,1,0.1,0.5] s_max=inf",
)
LEVELS = 24
"""Plans with so many levels or fewer are kept with them."""


def plans() -> None:
    """What plans are parsed to, with the levels that they visit."""
    kept = {}
    for text in PLANS:
        found = json.loads(call(words("plan", text, "--json")))
        assert found["plan"] == str(rs.Plan.parse(text))
        kept[text] = found if len(found["levels"]) <= LEVELS else {**found, "levels": found["levels"][:LEVELS]}
    of_models = {
        name: json.loads(
            call(words("plan", "6 [3,1,0.5,2]", "--model", FILES / f"models/{name}.safetensors", "--json"))
        )
        for name in MODELS
    }
    presets = {
        name: {**json.loads(call(words("plan", name, "--json"))), "checkpoint": preset.checkpoint, "fid": preset.fid}
        for name, preset in rs.PRESETS.items()
    }
    for preset in presets.values():
        del preset["levels"]
    keep_json("plans", {"plans": kept, "models": of_models, "presets": presets})


STATES = {
    "heun": "8 [3,2,0.3,2]",
    "churn": "8 churn=10 s_min=0.01 s_max=50 s_noise=1.003",
    "gamma": "8 [3,2,0.3,2] gamma=0.05 s_noise=1.003",
    "dpmpp_2m": "10 [3,2,0.3,2] solver=dpmpp_2m",
    "sde_dpmpp_2m": "10 solver=sde_dpmpp_2m",
    "sa": "10 [3,1,0.3,2] solver=sa:p=2:tau=1",
    "unipc": "10 [3,1,0.3,2] solver=unipc:p=2",
    "pfgmpp": "8 [3,2,0.3,2]",
}


def states() -> None:
    """Where the sampler ends on the exact mixture, in float64: the numbers of a seed."""
    means = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = rs.GaussianMixture(means, std=0.2)
    seeds = [0, 1, 12345, 2**40]
    kept = {"means": means.numpy(), "std": np.array(0.2), "seeds": np.array(seeds)}
    for name, text in STATES.items():
        plan = rs.Plan.parse(text)
        path = plan.path(sigma_min=0.002, sigma_max=80.0)
        kernel = (
            rs.PFGMppKernel(seeds, D=128, s_noise=plan.s_noise)
            if name == "pfgmpp"
            else rs.GaussianKernel(seeds, s_noise=plan.s_noise)
        )
        start = kernel.start((2, 4, 4), path.levels[0])
        kept[f"{name}.plan"] = np.array(text)
        kept[f"{name}.start"] = start.numpy()
        kept[f"{name}.end"] = rs.sample(net, start, path, *plan.solvers, perturb=kernel).numpy()
    sigmas = torch.linspace(9, 0, 13, dtype=torch.float64)
    x = 9 * torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    unit = torch.randn(30, *x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noise = iter(unit)
    end = sample_restart(
        lambda x, sigma: net(x, sigma.expand(len(x))),
        x,
        sigmas,
        disable=True,
        restart_list={0.7: [3, 2, 4.0]},
        noise_sampler=lambda low, high: next(noise),
    )
    used = len(unit) - len(list(noise))
    kept |= {"kdiffusion.sigmas": sigmas.numpy(), "kdiffusion.start": x.numpy(), "kdiffusion.end": end.numpy()}
    kept["kdiffusion.noise"] = unit[:used].numpy()
    np.savez_compressed("states.npz", **kept)
    keep("states.npz")


def toy_network(x: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x * (1 + torch.as_tensor(timestep) / 1000))


def schedulers() -> None:
    """Folders as save_pretrained makes them, and what the schedulers in them do."""
    from tiny_pipelines import flux, stable_diffusion

    from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler

    sd, flow = stable_diffusion(), flux()
    sd.scheduler = RestartScheduler.from_config(sd.scheduler.config, restart=[[4, 2, 0.1, 2.0]], solver="euler")
    flow.scheduler = FlowMatchRestartScheduler.from_config(
        flow.scheduler.config, restart=[[4, 2, 0.2, 0.6]], use_dynamic_shifting=False
    )
    kept = {}
    for name, pipe in {"restart": sd, "flow_restart": flow}.items():
        pipe.save_pretrained(f"whole/{name}")
        scheduler = type(pipe.scheduler).from_pretrained(f"whole/{name}", subfolder="scheduler")
        x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
        scheduler.set_timesteps(10)
        kept[f"{name}.timesteps"], kept[f"{name}.start"] = scheduler.timesteps.numpy(), x.numpy()
        generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        for timestep in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(toy_network(scaled, timestep), timestep, x, generator=generators).prev_sample
        kept[f"{name}.end"] = x.numpy()
        for file in ("model_index.json", "scheduler/scheduler_config.json"):
            Path("schedulers", name, file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path("whole", name, file), Path("schedulers", name, file))
    np.savez_compressed("schedulers/states.npz", **kept)
    keep("schedulers")


PARTS: dict[str, Callable[[], None]] = {
    "models": models,
    "generate": generate,
    "plans": plans,
    "states": states,
    "schedulers": schedulers,
}


if __name__ == "__main__":
    FILES.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            PARTS[part]()
