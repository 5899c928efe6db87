"""What the arithmetic of the network costs in Fréchet distance, beside the spread between blocks of seeds.

    python benchmarks/precision.py --reference train.npz --detector cifar10-classifier.torchscript.pt --trust-detector

Images of the bundled model, the same seeds for every arithmetic; differences to float32 are paired by seed. The last
arithmetic also draws other blocks of seeds.
"""

import platform
from pathlib import Path
from typing import Any

import click
import torch

import restart_sampling as rs
from restart_sampling.base.ranks import Ranks
from restart_sampling.cli.options import trust_option
from restart_sampling.comparison.run import own_batches
from restart_sampling.evaluation.detectors import load_detector
from restart_sampling.evaluation.measure import Batches, measure
from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.evaluation.reference import load_reference
from restart_sampling.generation.net_drawing import NetDrawing

ARITHMETIC = {
    "float32": (torch.float32, False),
    "bfloat16": (torch.bfloat16, False),
    "float16": (torch.float16, False),
    "bfloat16, compiled": (torch.bfloat16, True),
    "float16, compiled": (torch.float16, True),
}


@click.command()
@click.option("--reference", "reference_path", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--detector", "detector_name", required=True)
@trust_option
@click.option("--plan", "plan_text", default="18", show_default=True)
@click.option("--images", default=10_000, show_default=True)
@click.option("--blocks", default=3, show_default=True)
@click.option("--batch", default=1000, show_default=True)
@click.option("--device", "device_name", default="cuda", show_default=True)
@click.option("--arithmetic", default=";".join(ARITHMETIC), show_default=True, help="Which, with ; between.")
def main(
    reference_path: Path,
    detector_name: str,
    trust: bool | str,
    plan_text: str,
    images: int,
    blocks: int,
    batch: int,
    device_name: str,
    arithmetic: str,
) -> None:
    ranks = Ranks(0, 1, torch.device(device_name))
    reference, detector = load_reference(reference_path), load_detector(detector_name, ranks.device, trust=trust)
    plan = rs.Plan.parse(plan_text)
    chip = torch.cuda.get_device_name() if device_name == "cuda" else device_name
    print(f"{chip}; torch {torch.__version__}; Python {platform.python_version()}")
    print(f"cifar10-small, {images} images a block, plan {plan}")

    def figures(model: Any, block: int) -> tuple[dict[str, Any], torch.Tensor]:
        """The values of a block of seeds, and its images."""
        seeds = range(block * images, (block + 1) * images)
        kept: list[torch.Tensor] = []

        def keeping() -> Batches:
            for places, made, labels in own_batches(NetDrawing(model, plan, batch=batch), seeds, ranks):
                kept.append(made)
                yield places, made, labels

        return measure(keeping(), images, detector, reference, ranks), torch.cat(kept).double()

    print(f"{'arithmetic':20}{'block':>6}{'distance':>20}{'paired difference':>22}{'grey levels':>13}{'seconds':>9}")
    first: dict[str, Any] = {}
    for name in arithmetic.split(";"):
        dtype, compiled = ARITHMETIC[name]
        model = rs.fast(rs.load_model("cifar10-small", device=ranks.device), dtype, compiled=compiled)
        result, pixels = figures(model, 0)
        first = first or {"result": result, "pixels": pixels}
        difference, error = paired_difference(result, first["result"])
        levels = (pixels - first["pixels"]).abs().mean()
        print_row(name, 0, result, f"{difference:+.4f} +- {error:.4f}", f"{levels:.3f}")
    for block in range(1, blocks):
        print_row(name, block, figures(model, block)[0])


def print_row(name: str, block: int, result: dict[str, Any], difference: str = "", levels: str = "") -> None:
    distance = f"{result['frechet_distance']:.4f} +- {result['frechet_distance_error']:.4f}"
    print(f"{name:20}{block:>6}{distance:>20}{difference:>22}{levels:>13}{result['seconds']:>9.1f}", flush=True)


if __name__ == "__main__":
    main()
