"""Writes images_original.npz: images that EDM's and the Restart authors' own samplers draw with the golden networks.

    python tests/golden/make_images.py EDM RESTART    # checkouts of NVlabs/edm, Newbeeer/diffusion_restart_sampling

Restart's script has no images of iDDPM, whose levels it does not round where it restarts: those are EDM's sampler's.
Its torchvision is only imported, never used here, so that an empty module does.
"""

import json
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

GOLDEN = Path(__file__).parent
SEEDS = [0, 1, 2, 2**32 + 3]
RESTART = {"num_steps": 8, "S_noise": 1.003, "S_min": 0.01, "S_max": 1, "restart_gamma": 0.05}
INTERVALS = '{"0": [3, 2, 0.06, 0.30]}'
CHURN = {"num_steps": 40, "sigma_max": 0.8, "S_churn": 4, "S_noise": 1.007, "S_min": 0.012, "S_max": 0.6}
OURS = "8 [3,2,0.06,0.30] gamma=0.05 s_min=0.01 s_max=1 s_noise=1.003"
RUNS = {
    "edm_adm_cond": ("restart", RESTART | {"restart_info": INTERVALS}, OURS),
    "vp_ddpmpp": ("restart", RESTART | {"restart_info": INTERVALS, "sigma_max": 0.6}, f"{OURS} sigma_max=0.6"),
    "ve_ncsnpp": ("restart", RESTART | {"restart_info": INTERVALS, "sigma_max": 0.6}, f"{OURS} sigma_max=0.6"),
    "iddpm_adm_cond": ("edm", CHURN, "40 churn=4 s_min=0.012 s_max=0.6 s_noise=1.007 sigma_max=0.8"),
}


def load(path, name):
    spec = spec_from_file_location(name, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(edm, restart):
    sys.path.insert(0, str(edm))
    for name in ("torchvision", "torchvision.utils"):
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["torchvision.utils"].make_grid = sys.modules["torchvision.utils"].save_image = None
    samplers = {
        "edm": load(edm / "generate.py", "edm_script").edm_sampler,
        "restart": (script := load(restart / "benchmarks/generate_restart.py", "restart_script")).restart_sampler,
    }
    from training import networks

    arrays = {}
    for name, (sampler, settings, plan) in RUNS.items():
        with np.load(GOLDEN / f"network_{name}.npz") as file:
            config = json.loads(str(file["config"]))
            state = {key[6:]: torch.from_numpy(file[key]) for key in file.files if key.startswith("state/")}
        net = getattr(networks, config["class_name"])(**config["init_kwargs"]).eval()
        net.load_state_dict(state)
        calls = []
        net.register_forward_pre_hook(lambda module, inputs, calls=calls: calls.append(float(inputs[1])))

        noise = script.StackedRandomGenerator("cpu", SEEDS)
        shape = [len(SEEDS), net.img_channels, net.img_resolution, net.img_resolution]
        latents, labels = noise.randn(shape, device="cpu"), None
        if net.label_dim:
            labels = torch.eye(net.label_dim)[noise.randint(net.label_dim, size=shape[:1], device="cpu")]
        with torch.no_grad():
            x = samplers[sampler](net, latents, labels, randn_like=noise.randn_like, **settings)
        arrays[f"{name}/plan"] = np.array(plan)
        arrays[f"{name}/levels"] = np.array(calls)  # of the network's calls
        arrays[f"{name}/images"] = (x * 127.5 + 128).clip(0, 255).to(torch.uint8).numpy()
        if name == "iddpm_adm_cond":
            index = net.round_sigma(torch.linspace(-5, 4, 20_000, dtype=torch.float64).exp(), return_index=True)
            arrays[f"{name}/rounded"] = torch.bincount(index.flatten(), minlength=1001).short().numpy()
        print(name, len(calls), "calls", (x.abs() > 1).double().mean().item(), "clipped")
    np.savez_compressed(GOLDEN / "images_original.npz", seeds=np.array(SEEDS), **arrays)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
