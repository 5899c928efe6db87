"""Tiny sweeps, and results files that were made up."""

import json
from pathlib import Path

from restart_sampling.base.ranks import Ranks
from restart_sampling.comparison.named_plans import family_of
from restart_sampling.evaluation.detectors import load_detector
from restart_sampling.evaluation.measure import make_reference
from restart_sampling.evaluation.reference import save_reference
from restart_sampling.evaluation.results_file import SCHEMA
from restart_sampling.sampling.plan import Plan
from tiny import detector_file, pictures
from tiny_model import tiny_model_file

SWEEP = (
    *("sweep", "--model", "tiny.safetensors", "--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector"),
    *("--images", "12", "--batch", "4", "--out", "out"),
)
PLANS = ("2", "3 churn=1", "3 solver=ddpm", "3 [2,1,0.5,3]", "3 [2,3,0.5,3]")


def tiny_files(folder: Path, size: int = 8) -> None:
    import torch

    tiny_model_file(folder / "tiny.safetensors")
    detector = load_detector(str(detector_file(folder / "tiny.pt")), trust=True)
    images = torch.from_numpy(pictures(40, size=size))
    reference = make_reference(
        iter([(range(40), images, None)]), 40, detector, Ranks(0, 1, torch.device("cpu")), keep_features=True
    )
    save_reference(reference, folder / "ref.npz")


def plans_file(*plans: str, name: str = "plans.txt") -> Path:
    path = Path(name)
    path.write_text("\n".join(plans or PLANS) + "\n")
    return path


def lines(path: Path = Path("out/results.jsonl")) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def result(plan: str, distance: float, error: float = 0.1, **more) -> dict:
    parsed = Plan.parse(plan)
    return {
        "schema": SCHEMA,
        "run": {
            "model_sha256": "ab" * 32,
            "D": None,
            "plan": str(parsed),
            "seeds": "0-19999",
            "class": None,
            "guidance": 1.0,
            "noise": "counter",
            "arithmetic": "float32",
        },
        "name": str(parsed),
        "family": family_of(parsed),
        "model": "made-up",
        "plan": str(parsed),
        "nfe": parsed.path().nfe(*parsed.solvers),
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "published_fid": None,
        "detector": "torchscript sha256 00",
        "detector_name": "made-up.pt",
        "metrics": ["fd"],
        "blocks": 2,
        "reference": {"path": "ref.npz", "sha256": "cd" * 32, "images": 50000, "source": None},
        "device": "1 x cpu",
        "versions": {},
        "images": 20000,
        "frechet_distance": distance,
        "frechet_distance_error": error,
        "frechet_distance_min": distance - error,
        "frechet_distance_blocks": [distance - error, distance + error],
        "seconds": 1.0,
        **more,
    }


def results_file(*results: dict, name: str = "results.jsonl") -> Path:
    path = Path(name)
    path.write_text("".join(json.dumps(each) + "\n" for each in results))
    return path


def made_up() -> list[dict]:
    """ODE, SDE and Restart, with a known Pareto front, four K, four t_min and three lengths."""
    ode = [result("9", 9.0), result("18", 7.0), result("64", 6.5)]
    sde = [result("18 churn=8", 8.0), result("128 churn=8", 4.0)]
    repeats = [result(f"18 [3,{K},1.09,3.2]", d) for K, d in ((1, 6.0), (2, 5.6), (4, 5.2), (8, 5.4))]
    places = [result(f"18 [3,2,{t:g},{t + 2.11:g}]", d) for t, d in ((0.06, 6.9), (0.3, 6.6), (5.3, 6.2))]
    lengths = [result("18 [3,2,1.09,2.09]", 5.9), result("18 [3,2,1.09,9.09]", 6.4)]
    return [*ode, *sde, *repeats, *places, *lengths]
