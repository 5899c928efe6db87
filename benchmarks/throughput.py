"""Images a second on one GPU, beside the plain way, and how much of the chip's bfloat16 ceiling the network reaches.

    python benchmarks/throughput.py [--network cifar10] [--plan 18] [--repeats 3] [--profile]

The plain way is what a script does that is written straight from the paper: the network in eager mode with torch's
default settings (TF32 convolutions; the ADM network in float16, as published), its resampling by filters, a generator
for each image, float64 state, one PNG after another written between the batches. Both sides take the batch size that
is best for them, in one run. Weights are random, so the images are noise, the hardest that PNG can get.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from heapq import nlargest
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

import restart_sampling as rs
from restart_sampling.base.numerics import full_float32
from restart_sampling.base.ranks import Ranks
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.generation.seeds import cut
from restart_sampling.generation.store import BlockStore
from restart_sampling.generation.write import write_missing
from restart_sampling.images.writers import encode_png
from restart_sampling.models.denoiser import Denoiser, EDMPrecond
from restart_sampling.models.guidance import guided_by_class
from restart_sampling.models.layers import Resample, ResampleConv2d
from restart_sampling.sampling.edm_noise import EDMNoise

NETWORKS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "img_resolution": 32,
        "model_type": "SongUNet",
        "channel_mult": [2, 2, 2],
        "augment_dim": 9,
    },
    "imagenet64": {"img_resolution": 64, "model_type": "DhariwalUNet", "label_dim": 1000},
    "tiny": {"img_resolution": 8, "model_type": "SongUNet", "model_channels": 8, "channel_mult": [1, 1]},
}
"""EDM's DDPM++ for CIFAR-10, ADM for ImageNet-64, and one to try the script with."""

PLAIN_DTYPE = {"cifar10": torch.float32, "imagenet64": torch.float16, "tiny": torch.float32}

CUDA = torch.device("cuda")


def build(network: str, device: torch.device = CUDA) -> Denoiser:
    """With random weights, none of them as near zero as at the start of a training: chips are faster on zeros."""
    torch.manual_seed(0)
    model = EDMPrecond(img_channels=3, **NETWORKS[network])
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.abs().max() < 1e-3:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval().requires_grad_(False).to(device)


def plain(network: str, device: torch.device = CUDA) -> Denoiser:
    model = build(network, device).to(PLAIN_DTYPE[network])
    for module in model.modules():
        if isinstance(module, Resample | ResampleConv2d):
            module.box = False
    return model


OURS: dict[str, Callable[[Denoiser], Denoiser]] = {
    "float32": lambda model: model,
    "bfloat16": lambda model: rs.fast(model, torch.bfloat16),
    "float16": lambda model: rs.fast(model, torch.float16),
    "bfloat16, compiled": lambda model: rs.fast(model, torch.bfloat16, compiled=True),
    "float16, compiled": lambda model: rs.fast(model, torch.float16, compiled=True),
}


def milliseconds(call: Callable[[], object], repeats: int = 10) -> list[float]:
    """Of each repeat, by the device's clock, after three to warm up."""
    times = []
    for _ in range(repeats + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        call()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return times[3:]


def ceiling() -> float:
    """Operations a second of a large bfloat16 matrix product on random data."""
    a, b = (torch.randn(8192, 8192, device=CUDA, dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / (median(milliseconds(lambda: a @ b)) / 1e3)


def one_call(model: Denoiser, batch: int) -> Callable[[], object]:
    device = model.device
    x = torch.randn(batch, model.channels, model.resolution, model.resolution, dtype=torch.float64, device=device)
    sigma = torch.full((batch,), 1.0, dtype=torch.float64, device=device)
    labels = torch.arange(batch, device=device) % model.label_dim if model.label_dim else None
    return lambda: model(x, sigma, labels)


def plain_way(model: Denoiser, plan: rs.Plan, batch: int, images: int, folder: Path) -> None:
    """The loop of such a script."""
    path = plan.path(model.sigma_min, model.sigma_max)
    for seeds in cut(range(images), batch):
        kernel = EDMNoise(seeds, path, device=CUDA)
        x = kernel.start((model.channels, model.resolution, model.resolution), path.levels[0])
        labels = kernel.labels(model.label_dim) if model.label_dim else None
        x = rs.follow(guided_by_class(model, labels), x, path, *plan.solvers, perturb=kernel)
        pixels = (x * 127.5 + 128).clip(0, 255).to(torch.uint8).cpu().numpy()
        for seed, image in zip(seeds, pixels, strict=True):
            (folder / f"{seed:06d}.png").write_bytes(encode_png(image))


def our_way(model: Denoiser, plan: rs.Plan, batch: int, images: int, out: Path) -> None:
    seeds = range(images)
    store = BlockStore(out, cut(seeds, batch), {})
    draw = NetDrawing(model, plan, batch=batch).draw
    assert write_missing(store, {"run": {}, "batch": batch}, draw, Ranks(0, 1, CUDA)) == images


def timed_runs(run: Callable[[Path], None], repeats: int) -> list[float]:
    """Seconds of each run into a new place."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            place = Path(folder) / str(number)
            place.mkdir()
            start = time.perf_counter()
            run(place)
            seconds.append(time.perf_counter() - start)
    return seconds


@contextmanager
def network_time(model: Denoiser) -> Iterator[list[float]]:
    """Seconds of the model's calls in the body, by the device's clock; known after it."""
    events: list[torch.cuda.Event] = []

    def record(*_: object) -> None:
        events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        events[-1].record()

    handles = (model.register_forward_pre_hook(record), model.register_forward_hook(record))
    seconds: list[float] = []
    yield seconds
    for handle in handles:
        handle.remove()
    torch.cuda.synchronize()
    seconds.append(sum(start.elapsed_time(end) for start, end in zip(events[::2], events[1::2], strict=True)) / 1e3)


def sampler_alone(model: Denoiser, plan: rs.Plan, batch: int) -> float:
    """Milliseconds of the loop, the solver, the kernel and its noise for one batch, with a free denoiser."""
    path = plan.path(model.sigma_min, model.sigma_max)
    shape = (model.channels, model.resolution, model.resolution)

    def run() -> None:
        kernel = rs.GaussianNoise(range(batch), device=CUDA)
        x = kernel.start(shape, path.levels[0])
        rs.follow(lambda state, sigma: state, x, path, *plan.solvers, perturb=kernel)

    return median(milliseconds(run))


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), default="cifar10", show_default=True)
@click.option("--plan", "plan_text", default="18", show_default=True)
@click.option("--plain-batches", default="64,128,256,512", show_default=True)
@click.option("--batches", default="64,512", show_default=True)
@click.option("--arithmetic", default=";".join(OURS), show_default=True, help="Which of ours, with ; between.")
@click.option("--plain-images", default=512, show_default=True, help="Images of a run of the plain way.")
@click.option("--images", default=2048, show_default=True, help="Images of a run of ours.")
@click.option("--outs", default="folder,images.zip", show_default=True, help="Of ours, with , between.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--profile", "profiled", is_flag=True, help="Print the kernels of one call of our best.")
@torch.no_grad()
def main(
    network: str,
    plan_text: str,
    plain_batches: str,
    batches: str,
    arithmetic: str,
    plain_images: int,
    images: int,
    outs: str,
    repeats: int,
    profiled: bool,
) -> None:
    plan = rs.Plan.parse(plan_text)
    model = build(network)
    nfe = plan.path(model.sigma_min, model.sigma_max).nfe(*plan.solvers)
    with FlopCounterMode(display=False) as counter:
        one_call(model, 1)()
    operations, most = counter.get_total_flops(), ceiling()
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; bfloat16 ceiling {most / 1e12:.0f} TFLOP/s")
    print(
        f"{network}: {millions:.1f} M parameters, {operations / 1e9:.1f} GFLOP a call and image; plan {plan}: {nfe} NFE"
    )

    console = Console(width=140)
    calls = Table("network", "batch", "ms a call", "spread", "images/s and call", "TFLOP/s", "of the ceiling", box=None)
    best: dict[str, tuple[float, int, Denoiser]] = {}  # images a second, batch, model
    ways = {"plain way": lambda model: plain(network), **{name: OURS[name] for name in arithmetic.split(";")}}
    for name, prepare in ways.items():
        sizes = [int(size) for size in (plain_batches if name == "plain way" else batches).split(",")]
        for size in sizes:
            model = prepare(build(network))
            with nullcontext() if name == "plain way" else full_float32():
                times = milliseconds(one_call(model, size))
            rate = 1e3 * size / median(times)
            calls.add_row(
                name,
                str(size),
                f"{median(times):.2f}",
                f"{min(times):.2f} to {max(times):.2f}",
                f"{rate:.0f}",
                f"{rate * operations / 1e12:.0f}",
                f"{rate * operations / most:.1%}",
            )
            best[name] = max(best.get(name, (0.0, size, model)), (rate, size, model), key=lambda entry: entry[0])
    console.print(calls)

    runs = Table("run", "batch", "out", "images", "images/s", "spread", "to plain", "outside the network", box=None)
    ours = max((name for name in best if name != "plain way"), key=lambda name: best[name][0])
    reference = 0.0
    for name, out in (("plain way", "folder"), *((ours, out) for out in outs.split(","))):
        rate, size, model = best[name]
        number = plain_images if name == "plain way" else images
        way = plain_way if name == "plain way" else our_way
        with network_time(model) as network_seconds:
            seconds = timed_runs(
                lambda place, way=way, model=model, size=size, number=number, out=out: way(  # type: ignore[misc]
                    model, plan, size, number, place / out if out.endswith(".zip") else place
                ),
                repeats,
            )
        speeds = [number / each for each in seconds]
        reference = reference or median(speeds)
        runs.add_row(
            name,
            str(size),
            out,
            str(number),
            f"{median(speeds):.1f}",
            f"{min(speeds):.1f} to {max(speeds):.1f}",
            f"{median(speeds) / reference:.2f}",
            f"{1 - sum(network_seconds) / sum(seconds):.1%}",
        )
    console.print(runs)
    rate, size, model = best[ours]
    share = sampler_alone(model, plan, size) / (1e3 * size * nfe / rate)
    print(f"sampler alone (loop, solver, kernel, noise), {ours}, batch {size}: {share:.2%} of the network's calls")
    if profiled:
        print_kernels(one_call(model, size))


def print_kernels(call: Callable[[], object]) -> None:
    """The device's time of a call by kind of kernel, and the longest kernels."""
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    kernels = [(event.self_device_time_total, event.count, event.key) for event in recorded.key_averages()]
    total = sum(time for time, _, _ in kernels)
    for microseconds, times, name in nlargest(20, kernels):
        print(f"{microseconds / 1e3:8.3f} ms {microseconds / total:6.1%} in {times:4} launches of {name[:90]}")


if __name__ == "__main__":
    main()
