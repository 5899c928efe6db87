"""What evaluation costs, each against the plain way, in one run.

python benchmarks/evaluation.py distance                   # ours and scipy's matrix root, 2048 features
python benchmarks/evaluation.py images                     # a zip of 10,000 PNGs into statistics, and a plain loop
python benchmarks/evaluation.py neighbours --images 10000 --reference 20000 --features 128    # precision and recall
python benchmarks/evaluation.py streamed --detector classifier.pt --trust-detector    # beside generation alone
"""

import io
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from os import getloadavg
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch
from PIL import Image

import restart_sampling as rs
from restart_sampling.base.ranks import Ranks
from restart_sampling.cli.options import trust_option
from restart_sampling.comparison.run import own_batches
from restart_sampling.evaluation.collect import Collector
from restart_sampling.evaluation.detectors import Detector, load_detector
from restart_sampling.evaluation.distances import frechet_distance
from restart_sampling.evaluation.measure import image_batches
from restart_sampling.evaluation.neighbours import precision_recall
from restart_sampling.evaluation.statistics import Statistics
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.images.image_set import read_images


def seconds(call: Callable[[], object], repeats: int) -> list[float]:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return taken


def in_turn(ways: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Seconds by the clock and of a core, of each way; in turn, so that a slow spell of the machine meets all."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            core, start = time.process_time(), time.perf_counter()
            way()
            taken[name].append((time.perf_counter() - start, time.process_time() - core))
    return taken


def show(name: str, taken: list[float], unit: str = "s", count: float = 1.0) -> float:
    values = [count / each if count != 1 else each for each in taken]
    print(f"{name}: median {median(values):.2f} {unit} ({min(values):.2f} to {max(values):.2f})")
    return median(taken)


@click.group()
def main() -> None:
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")


@main.command()
@click.option("--repeats", default=3)
def distance(repeats: int) -> None:
    import scipy.linalg

    def statistics(scale: float) -> Statistics:
        x = scale * torch.randn(5000, 2048, dtype=torch.float64) @ torch.randn(2048, 2048, dtype=torch.float64) / 45
        return Statistics(5000, x.mean(dim=0), torch.cov(x.T))

    a, b = statistics(1.0), statistics(1.2)

    def ours() -> float:  # from mu and sigma alone: factors that were kept do not count
        return frechet_distance(Statistics(a.count, a.mu, a.sigma), Statistics(b.count, b.mu, b.sigma))

    def scipys() -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root = scipy.linalg.sqrtm((a.sigma @ b.sigma).numpy())
        return float((a.mu - b.mu).square().sum() + a.sigma.trace() + b.sigma.trace()) - 2 * float(np.trace(root.real))

    fast, slow = show("ours", seconds(ours, repeats)), show("scipy sqrtm", seconds(scipys, repeats))
    print(f"{slow / fast:.1f} times faster; relative difference {abs(ours() / scipys() - 1):.1e}")


@main.command()
@click.option("--images", default=5000)
@click.option("--reference", "references", default=5000)
@click.option("--features", default=128)
@click.option("--repeats", default=3)
@click.option("--device", default="cpu")
@click.option("--plain/--no-plain", default=True, help="whether to compute it the plain way too")
def neighbours(images: int, references: int, features: int, repeats: int, device: str, plain: bool) -> None:
    """Scales of the features fall off as those of a network do; the plain way is on the CPU."""
    mix = torch.randn(features, features) / features**0.5 * torch.logspace(0, -2, features)
    x, y = (scale * torch.randn(count, features) @ mix for scale, count in ((1.0, images), (1.1, references)))
    on_device = [each.to(device) for each in (x, y)]
    found: dict[str, tuple[float, float]] = {}

    def ours() -> None:
        found["ours"] = precision_recall(*on_device)

    def plainly() -> None:
        """Exact distances, of 1024 rows at a time."""

        def distances(points: torch.Tensor, centres: torch.Tensor) -> Iterator[torch.Tensor]:
            for start in range(0, len(points), 1024):
                rows = points[start : start + 1024]
                yield torch.cdist(rows, centres, compute_mode="donot_use_mm_for_euclid_dist")

        def covered(points: torch.Tensor, centres: torch.Tensor) -> float:
            radii = torch.cat([near.kthvalue(4, dim=1).values for near in distances(centres, centres)])
            inside = [(near <= radii).any(dim=1) for near in distances(points, centres)]
            return torch.cat(inside).double().mean().item()

        a, b = x.double(), y.double()
        found["plain"] = covered(a, b), covered(b, a)

    ways = {"ours": ours} | ({"plain": plainly} if plain else {})
    taken = in_turn(ways, repeats)
    cores = {name: [core for _, core in each] for name, each in taken.items()}
    for name, each in taken.items():
        show(name, [wall for wall, _ in each])
        show(f"{name}, seconds of a core", cores[name])
    print(f"precision and recall {found}, load {getloadavg()[0]:.1f}")
    if plain:
        assert found["ours"] == found["plain"]
        print(f"{median(cores['plain']) / median(cores['ours']):.1f} times fewer seconds of a core")


@main.command()
@click.option("--count", default=10_000)
@click.option("--repeats", default=3)
def images(count: int, repeats: int) -> None:
    """The detector averages over 7 x 7 parts of the image, so that reading is what is timed."""
    pool = torch.nn.AdaptiveAvgPool2d(7)
    detector = Detector("pool", "pool", lambda x: pool(x.float()).flatten(1), torch.device("cpu"))
    ranks = Ranks(0, 1, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.zip"
        random = np.random.default_rng(0)
        with zipfile.ZipFile(path, "w") as archive:
            for index in range(count):
                buffer = io.BytesIO()
                coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
                Image.fromarray(coarse).save(buffer, format="png")
                archive.writestr(f"{index:06d}.png", buffer.getvalue())

        def ours() -> None:
            collector = Collector(detector, count, 10)
            for places, batch, labels in image_batches(read_images(path), ranks, 64):
                collector.add(batch, places, labels)
            assert collector.moments is not None
            collector.moments.statistics()

        def plain(size: int) -> None:
            features = []
            with zipfile.ZipFile(path) as archive:
                names = sorted(archive.namelist())
                for start in range(0, count, size):
                    pixels = []
                    for name in names[start : start + size]:
                        with Image.open(io.BytesIO(archive.read(name))) as image:
                            pixels.append(np.asarray(image.convert("RGB")).transpose(2, 0, 1))
                    features.append(detector.extract(torch.from_numpy(np.stack(pixels))))
            np.cov(torch.cat(features).double().numpy(), rowvar=False)

        ways: dict[str, Callable[[], None]] = {
            "ours": ours,
            "plain loop": lambda: plain(1),
            "plain loop, batches of 64": lambda: plain(64),
        }
        for name, each in in_turn(ways, repeats).items():
            wall, core_seconds = zip(*each, strict=True)
            show(name, list(wall), "images/s", count)
            show(f"{name}, seconds of a core", list(core_seconds))


@main.command()
@click.option("--device", "device_name", default="cuda")
@click.option("--detector", "detector_name", required=True)
@trust_option
@click.option("--count", default=20_000)
@click.option("--batch", default=1000)
@click.option("--repeats", default=3)
@click.option("--plan", "text", default="cifar10-small-43")
def streamed(
    device_name: str, detector_name: str, trust: bool | str, count: int, batch: int, repeats: int, text: str
) -> None:
    device = torch.device(device_name)
    model, plan = rs.load_model("cifar10-small", device=device), rs.Plan.parse(text)
    detector, ranks = load_detector(detector_name, device, trust=trust), Ranks(0, 1, device)

    def run(seeds: range, evaluate: bool) -> None:
        collector = Collector(detector, len(seeds), 10)
        for places, made, labels in own_batches(NetDrawing(model, plan, batch=batch), seeds, ranks):
            if evaluate:
                collector.add(made, places, labels)
        if evaluate:
            assert collector.moments is not None
            collector.moments.statistics()

    for evaluate in (False, True) * 2:  # TorchScript specialises during its first calls
        run(range(batch), evaluate)
    alone, both = [], []
    for _ in range(repeats):  # in turn, so that a slow spell of the machine meets both
        alone += seconds(lambda: run(range(count), False), 1)
        both += seconds(lambda: run(range(count), True), 1)
    first, second = show("generation alone", alone), show("generation and statistics", both)
    print(f"{second / first - 1:+.1%}; {count / second:.0f} images a second")


if __name__ == "__main__":
    main()
