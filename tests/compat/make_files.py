"""Made the files of version 0.1.0 in `files`, which later versions have to read and go on with.

It is here to tell how they were made, and reaches into the package as it was then: do not run it with a later one.

    PYTHONPATH=src:tests:tests/compat:tests/evaluation:tests/text_to_image python tests/compat/make_files.py [PART]...
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from pathlib import Path

import numpy as np
import old_files as old
import torch
from old_files import FILES, MODELS, words

import restart_sampling as rs
from restart_sampling.cli import main
from restart_sampling.kdiffusion import sample_restart
from restart_sampling.models.checkpoint import Checkpoint, write_safetensors
from restart_sampling.models.denoiser import DENOISERS

HERE = Path()
"""Of the commands, whose paths are relative."""

# In a process that ends itself as a kill does, in the middle of a file whose name holds a text, so many times.
KILLED_IN_A_WRITE = """
import os, signal, sys
from pathlib import Path
import restart_sampling.images.block_store as block_store
from restart_sampling.cli import main

text, times = sys.argv.pop(1), int(sys.argv.pop(1))


def now():
    global times
    times -= 1
    return times == 0


def kill_in_half(write):
    def half(path, content, *more):
        if text in path.name and now():
            write(path, content[: len(content) // 2], *more)
            os.kill(os.getpid(), signal.SIGKILL)
        return write(path, content, *more)

    return half


Path.write_bytes, Path.write_text = kill_in_half(Path.write_bytes), kill_in_half(Path.write_text)
add_entry = block_store.add_entry


def add(archive, name, content):
    if text in name and now():
        archive.fp.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    add_entry(archive, name, content)


block_store.add_entry = add
main()
"""

# In a process, or one of two, that saves its sums after each batch, and ends itself after so many.
KILLED_BETWEEN_BATCHES = """
import os, signal, sys, time
from pathlib import Path
import restart_sampling.evaluation.partial as partial
from restart_sampling.cli import main
from restart_sampling.evaluation.collect import Collector

left = int(sys.argv.pop(1))
partial._SHARE = 1e9
add = Collector.add


def add_or_end(*arguments):
    global left
    left -= 1
    if left < 0:
        Path(f"ready-{os.environ.get('RANK', 0)}").touch()
        while not all(Path(f"ready-{rank}").exists() for rank in range(int(os.environ.get("WORLD_SIZE", 1)))):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    add(*arguments)


Collector.add = add_or_end
main()
"""

# In a process that looks and saves after each step, and ends itself in the middle of a state.
KILLED_IN_A_STATE = """
import os, signal, sys
import restart_sampling.training.progress as progress
from restart_sampling.cli import main
from restart_sampling.files import atomic
from restart_sampling.training.run_folder import RunFolder

left = int(sys.argv.pop(1))
progress.ROUND_SECONDS = 0
save_state = RunFolder.save_state


def save_or_end(self, state):
    global left
    left -= 1
    if left < 0:
        with atomic(self.path / "state.pt") as temporary:
            temporary.write_bytes((self.path / "state.pt").read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)
    save_state(self, state)


RunFolder.save_state = save_or_end
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


def keep(*names: str, packed: tuple[str, ...] = ()) -> None:
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
    for name in packed:
        (FILES / name).parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(FILES / f"{name}{old.PACKED}", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(Path(name).rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(name))


def keep_json(name: str, content: dict) -> None:
    """One entry a line."""
    entries = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    (FILES / f"{name}.json").write_text("{\n" + ",\n".join(entries) + "\n}\n")


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
        x = torch.randn(1, 3, 8, 8).expand(2, 3, 8, 8).double()
        sigma = model.round_sigma(torch.tensor([0.7, 12.0], dtype=torch.float64))
        labels = torch.tensor([0, 2]) if model.label_dim else None
        with torch.no_grad():
            answer = model(x, sigma, labels)
        answers |= {f"{name}.x": x[:1].float(), f"{name}.sigma": sigma, f"{name}.answer": answer.float()}
        answers[f"{name}.limits"] = torch.tensor([model.sigma_min, model.sigma_max, model.D or 0], dtype=torch.float64)
    np.savez_compressed("answers.npz", **{key: value.numpy() for key, value in answers.items()})
    keep("answers.npz", packed=("models",))


def generate() -> None:
    """Folders and zips: finished, killed in the second of three blocks, and killed before the first."""
    old.take("models", HERE)
    Path("generate").mkdir()
    for kind in ("", ".zip"):
        outs = {state: HERE / f"generate/{state}{kind}" for state in ("finished", "killed", "begun")}
        call(old.generate(HERE, outs["finished"]))
        kill(KILLED_IN_A_WRITE, "000006.png", "1", *old.generate(HERE, outs["killed"]))
        kill(KILLED_IN_A_WRITE, "manifest.json", "1", *old.generate(HERE, outs["begun"]))
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


def explained(*arguments: str) -> dict:
    """What the command `plan` says, from this process: there are many plans."""
    with redirect_stdout(io.StringIO()) as stdout, suppress(SystemExit):
        main(["plan", *arguments, "--json"])
    return json.loads(stdout.getvalue())


def plans() -> None:
    """What plans are parsed to, with the levels that they visit."""
    old.take("models", HERE)
    kept = {}
    for text in PLANS:
        found = explained(text)
        assert found["plan"] == str(rs.Plan.parse(text))
        kept[text] = found if len(found["levels"]) <= LEVELS else {**found, "levels": found["levels"][:LEVELS]}
    of_models = {name: explained("6 [3,1,0.5,2]", "--model", f"models/{name}.safetensors") for name in MODELS}
    presets = {
        name: {**explained(name), "checkpoint": preset.checkpoint, "fid": preset.fid}
        for name, preset in rs.PRESETS.items()
    }
    for preset in presets.values():
        del preset["levels"]
    (FILES / "plans").mkdir(exist_ok=True)
    keep_json("plans/plans", kept)
    keep_json("plans/models", of_models)
    keep_json("plans/presets", presets)


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
        if name in ("heun", "pfgmpp"):  # all others start where the first does
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


def figures() -> None:
    """A detector, images, their statistics in our form and in EDM's, and evaluations that were killed on the way."""
    from tiny import detector_file, image_folder, pictures

    old.take("models", HERE)
    Path("figures").mkdir()
    detector_file(Path("figures/tiny.pt"))
    image_folder(Path("data"), pictures(24), classes=3)
    call(words("dataset", "data", "figures/data.zip"))
    detector = ("--detector", "figures/tiny.pt", "--device", "cpu")
    call(words("reference", "figures/data.zip", "--out", "figures/reference.npz", *detector, "--features"))
    with np.load("figures/reference.npz") as file:
        np.savez("figures/edm.npz", mu=file["mu"], sigma=file["sigma"])
    kept = {}
    for name, more in old.EVALUATIONS.items():
        results = Path(f"evaluate/{name}/results.jsonl")
        first, second = old.PLANS
        call(old.evaluate(HERE, first, results, *more))
        killed = ("slow.py", "2" if name == "features" else "4", *old.evaluate(HERE, second, results, *more))
        Path("slow.py").write_text(KILLED_BETWEEN_BATCHES)
        ranks = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2") if name == "features" else ()
        assert subprocess.run([sys.executable, *ranks, *killed], stderr=subprocess.DEVNULL).returncode != 0
        for path in Path().glob("ready-*"):
            path.unlink()
        row = json.loads(call(old.evaluate(HERE, second, Path("undisturbed.jsonl"), *more)))
        kept[name] = {"sums": sums_of(row, name == "features", results), "row": row, "done": 16}
    row = json.loads(call(old.evaluate(HERE, first, Path("undisturbed.jsonl"), reference="edm.npz")))
    keep("figures", "evaluate")
    keep_json("evaluate/expected", {**kept, "edm": {"row": row}})


def sums_of(row: dict, features: bool, results: Path) -> dict:
    """All that the name of the saved sums of a figure is made of."""
    about = {
        "run": row["run"],
        "detector": row["detector"],
        "batch": old.BATCH,
        "blocks": row["blocks"],
        "features": features,
        "versions": row["versions"],
    }
    files = list(results.with_name(f"{results.name}.partial").iterdir())
    assert files
    assert {path.name.partition(".")[0] for path in files} == {old.sums_key(about)}
    return about


SWEPT = {
    "txt": "# of the original's form\n4\n4 churn=2 s_noise=1.003  # EDM's\n",
    "toml": '[[row]]\nname = "ours"\nplan = "6 [3,2,0.3,3]"\nfamily = "Restart"\nfid_paper = 2.5\n\n'
    '[[row]]\nsteps = 5\nsolver = "dpmpp_2m"\n',
    "csv": 'name,steps,intervals,s_noise,nfe\nfrom a table,4,"[2,1,0.5,3]",1.01,9\n',
}


def sweep() -> None:
    """A folder in which the third of five rows is half done."""
    for name in ("models", "figures"):
        old.take(name, HERE)
    Path("sweep").mkdir()
    for suffix, text in SWEPT.items():
        Path(f"sweep/plans.{suffix}").write_text(text)
    whole = json.loads(call(old.sweep(HERE, Path("undisturbed"))))["results"]
    batches = 2 * 12 // old.BATCH
    kill(KILLED_BETWEEN_BATCHES, str(2 * batches + 3), *old.sweep(HERE, Path("sweep/out")))
    keep("sweep")
    keep_json("sweep/expected", {"sums": sums_of(whole[2], False, Path("sweep/out/results.jsonl")), "rows": whole})


def train() -> None:
    """A run that was killed after seven of its twelve steps, without the pictures, which it does not read."""
    old.take("figures", HERE)
    result = json.loads(call(old.train(HERE, Path("undisturbed"))))
    kill(KILLED_IN_A_STATE, "6", *old.train(HERE, Path("train/killed"), "--save-minutes", "0.00001"))
    for path in Path("train/killed").glob("*.png"):
        path.unlink()
    shutil.copy2("undisturbed/model.safetensors", "train/finished.safetensors")
    keep("train/finished.safetensors", packed=("train/killed",))
    keep_json("train/expected", {"loss": result["loss"], "parameters": result["parameters"]})


def text() -> None:
    """A tiny pipeline and CLIP, images of prompts, and a table of which the second of three rows is half done."""
    from diffusers import StableDiffusionPipeline
    from tiny_folders import sd_folder, spread
    from tiny_pipelines import unet
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    from restart_sampling.images.prompts import write_prompts
    from tiny_clip import END, START, letters

    old.take("figures", HERE)
    Path("text").mkdir()
    pipe = StableDiffusionPipeline.from_pretrained(sd_folder(Path("whole")), torch_dtype=torch.float16)
    torch.manual_seed(1)
    pipe.unet = spread(unet(block_out_channels=(4, 4)), 0.2).half()
    pipe.save_pretrained("text/sd")
    vocabulary = letters()
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {f"{name}_token_id": vocabulary[token] for name, token in (("bos", START), ("eos", END), ("pad", END))}
    config = CLIPConfig(
        text_config={**small, "vocab_size": len(vocabulary), **ends},
        vision_config={**small, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    clip = CLIPModel(config)
    for parameter in clip.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    clip.half().save_pretrained("text/clip")
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained("text/clip")
    write_prompts([f"{many} {what}" for many in ("a", "two", "no", "my") for what in "abcde"], Path("text/prompts.csv"))
    call(old.text_generate(HERE, Path("text/finished")))
    kill(KILLED_IN_A_WRITE, "000003.png", "1", *old.text_generate(HERE, Path("text/killed")))
    whole = json.loads(call(old.text_compare(HERE, Path("undisturbed"))))["results"]
    kill(KILLED_IN_A_WRITE, "000006.png", "2", *old.text_compare(HERE, Path("text/table")))
    keep("text/prompts.csv", "text/finished", "text/killed", "text/table", packed=("text/sd", "text/clip"))
    keep_json("text/expected", {"rows": whole})


PARTS: dict[str, Callable[[], None]] = {
    "models": models,
    "generate": generate,
    "plans": plans,
    "states": states,
    "schedulers": schedulers,
    "figures": figures,
    "sweep": sweep,
    "train": train,
    "text": text,
}


if __name__ == "__main__":
    FILES.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            PARTS[part]()
