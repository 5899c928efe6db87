"""Defaults against defaults: `generate` with no option of speed, beside a plain loop at batch 64, on one device.

    python benchmarks/defaults.py [--out table.txt]

Both sides are whole processes, from their start to the last PNG of a folder, with the 55.7 M network of EDM for
CIFAR-10 (random weights, in an EDM pickle that is written here) and the paper's 43 evaluations. The plain loop is
written from the paper: float32 with torch's own settings (so TF32 convolutions), a generator for each image, a float64
state, one PNG after another between the batches. Its time for more images is that of its start and its rate, as it does
not get faster; so is ours for 50,000, of a run that is ended early.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor

import restart_sampling as rs
from throughput import NETWORKS, build, plain

PLAN = "18 [3,2,0.06,0.3]"
PLAIN_BATCH = 64
FEW, MANY = 5_000, 50_000
TESTS = Path(__file__).parents[1] / "tests"


def write_pickle(network: str, path: Path) -> None:
    """An EDM pickle of the network."""
    sys.path.append(str(TESTS / "models"))
    from edm_files import network as edm_network  # type: ignore[import-not-found]
    from edm_files import pickled, snapshot

    standard = {"model_channels": 128, "num_blocks": 4, "attn_resolutions": [16], "label_dim": 0, "augment_dim": 0}
    options = {**standard, **NETWORKS[network]}
    state = build(network, torch.device("cpu")).state_dict()
    path.write_bytes(pickled(snapshot(edm_network("edm_ddpmpp_cond_aug", state, **options))))


def plain_loop(network: str, images: int, folder: Path, device: torch.device) -> None:
    """Algorithm 2 of the paper, Heun's method; prints the seconds since the start of each batch that is there."""
    model = plain(network, device)
    path = rs.Plan.parse(PLAN).path(model.sigma_min, model.sigma_max)
    shape = (model.channels, model.resolution, model.resolution)

    def denoise(x: Tensor, sigma: float) -> Tensor:
        return model(x, torch.full((len(x),), sigma, dtype=torch.float64, device=device))

    def heun(x: Tensor, now: float, then: float) -> Tensor:
        slope = (x - denoise(x, now)) / now
        guess = x + (then - now) * slope
        if then == 0:
            return guess
        return x + (then - now) * (slope + (guess - denoise(guess, then)) / then) / 2

    for first in range(0, images, PLAIN_BATCH):
        seeds = range(first, min(first + PLAIN_BATCH, images))
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

        def noise(generators: list[torch.Generator] = generators) -> Tensor:
            draws = [torch.randn(shape, generator=each, device=device, dtype=torch.float64) for each in generators]
            return torch.stack(draws)

        x = noise() * path.levels[0]
        for move in path.moves:
            now, then = move.now, move.then
            x = x + (then**2 - now**2) ** 0.5 * noise() if move.rises else heun(x, now, then)
        pixels = (x * 127.5 + 128).clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        for seed, image in zip(seeds, pixels, strict=True):
            Image.fromarray(image).save(folder / f"{seed:06d}.png")


@dataclass(frozen=True)
class Timing:
    """A process that wrote PNGs.

    Attributes:
        seconds: from its start to its end; of a run that was ended early, as long as the whole would have taken.
        first: until its first images were there.
        rate: images a second, after those.
        measured: images that it made.
        said: what it said of itself.
    """

    seconds: float
    first: float
    rate: float
    measured: int
    said: str = ""


def timed(command: list[str], folder: Path, images: int, cache: Path, limit: float) -> Timing:
    """Runs a process, and looks at when its images appear; ends it after so many seconds."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_CACHE_DIR")}
    environment["RESTART_SAMPLING_CACHE"] = str(cache)
    start = time.time()
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            _, said = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate()
    seconds = time.time() - start
    appeared = np.sort([path.stat().st_mtime - start for path in folder.glob("**/*.png")])
    if (len(appeared) < images and process.returncode == 0) or len(appeared) < 2 * PLAIN_BATCH:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode} and {len(appeared)} images: {said}")
    # Images of a batch appear together, so that a rate is from the end of one batch to that of another.
    ends = np.flatnonzero(np.diff(appeared, append=np.inf) > 0.25 * np.diff(appeared).max())
    first, last = (ends[0], ends[-1]) if len(ends) > 1 else (0, len(appeared) - 1)
    rate = (last - first) / (appeared[last] - appeared[first])
    if len(appeared) < images:
        seconds = appeared[last] + (images - 1 - last) / rate
    return Timing(seconds, appeared[first], rate, len(appeared), said)


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), default="cifar10", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file for the table, too.")
@click.option("--device", default="cuda", show_default=True)
@click.option("--plain-images", default=10 * PLAIN_BATCH, show_default=True, help="That the plain loop makes.")
@click.option("--few", default=FEW, show_default=True)
@click.option("--many", default=MANY, show_default=True)
@click.option("--minutes", default=4.6, show_default=True, help="For all; the run of many images is cut to fit.")
@click.option("--plain-to", type=click.Path(path_type=Path, file_okay=False), hidden=True)
@torch.no_grad()
def main(
    network: str,
    out: Path | None,
    device: str,
    plain_images: int,
    few: int,
    many: int,
    minutes: float,
    plain_to: Path | None,
) -> None:
    if plain_to:
        plain_loop(network, plain_images, plain_to, torch.device(device))
        return
    start = time.monotonic()
    rows: dict[str, tuple[Timing, int]] = {}
    console = Console(width=140, record=True)
    chip = torch.cuda.get_device_name() if device == "cuda" else device
    console.print(f"{chip}, torch {torch.__version__}; {network} in an EDM pickle, plan {PLAN}; whole processes")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        model = place / "model.pkl"
        write_pickle(network, model)

        def ours(name: str, images: int, cache: str, limit: float) -> None:
            folder = place / f"images-{len(rows)}"
            command = [sys.executable, "-m", "restart_sampling", "generate", "--model", str(model), "--plan", PLAN]
            command += ["--seeds", f"0-{images - 1}", "--out", str(folder), "--device", device]
            rows[name] = timed(command, folder, images, place / cache, limit), images
            console.print(
                f"\n{name} ({rows[name][0].seconds:.1f} s):\n{rows[name][0].said.strip()}",
                markup=False,
                highlight=False,
            )

        folder = place / "plain"
        folder.mkdir()
        command = [sys.executable, __file__, "--network", network, "--device", device, "--plain-to", str(folder)]
        plain_timing = timed([*command, "--plain-images", str(plain_images)], folder, plain_images, place, 90)
        ours(f"{few:,}, cold cache", few, "cache-of-few", 120)
        left = 60 * minutes - (time.monotonic() - start)
        ours(f"{many:,}, cold cache", many, "cache-of-many", left - 65)  # which the last one takes
        ours(f"{few:,}, warm cache", few, "cache-of-many", 90)

    table = Table(
        "run", "images", "made", "seconds", "first after", "images/s then", "plain seconds", "faster", box=None
    )
    table.add_row("plain loop", str(plain_images), str(plain_timing.measured), *cells(plain_timing))
    for name, (timing, images) in rows.items():
        plain_seconds = plain_timing.seconds + (images - plain_images) / plain_timing.rate
        faster = f"{plain_seconds / timing.seconds:.2f}"
        table.add_row(name, str(images), str(timing.measured), *cells(timing), f"{plain_seconds:.0f}", faster)
    console.print(table)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(console.export_text(), "utf-8")


def cells(timing: Timing) -> tuple[str, str, str]:
    return f"{timing.seconds:.1f}", f"{timing.first:.1f}", f"{timing.rate:.1f}"


if __name__ == "__main__":
    main()
