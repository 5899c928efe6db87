"""Whether `generate` keeps its rate: images a second of each quarter of long arms, with what the device drew and did.

    python benchmarks/sustained.py --out out/sustained.txt [--seconds 20] [--device cpu --network tiny]

Each arm draws images with the paper's 43 evaluations, 512 at a time as `generate` does, with a network of random
weights: its calls as a graph or launched one by one, and the images written as PNG or dropped. Of a quarter of an arm:

- images/s, by the clock of the host, from one batch of images to another;
- ms a call and ms between two calls, by the device's clock. Does the rate fall because calls take longer, the device is
  slower (see its clock and power), and nothing on the host can help; because there is more between, it waits for work;
- host, ms a call: how long the host takes to launch one. It is near the device's where the queue of launches is full.

Before, a batch is drawn in which torch warns of whatever makes the host wait for the device.
"""

import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from threading import Thread

import click
import torch
from rich.console import Console
from rich.table import Table

import restart_sampling as rs
from defaults import PLAN
from restart_sampling.base.ranks import Ranks
from restart_sampling.generation.batch import Batch
from restart_sampling.generation.drawing import Advance
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.generation.pace import Pace
from restart_sampling.generation.seeds import cut
from restart_sampling.generation.store import BlockStore
from restart_sampling.generation.write import write_missing
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.graphed import GraphedNetwork
from throughput import NETWORKS, build

AT_ONCE, BLOCK, QUARTERS = 512, 64, 4
ARMS = {  # dtype, whether the calls are a graph, and whether the images are written
    "graph": (torch.float16, True, False),
    "graph, written": (torch.float16, True, True),
    "launched": (torch.float16, False, False),
    "launched, written": (torch.float16, False, True),
    "graph, bfloat16": (torch.bfloat16, True, False),
    "graph again": (torch.float16, True, False),
}
FIELDS = ("clocks.sm", "power.draw", "temperature.gpu")


@contextmanager
def watched(seen: list[tuple[float, ...]]) -> Iterator[None]:
    """Adds a time and the values of `FIELDS` to a list, five times a second, where there is nvidia-smi."""
    command = ["nvidia-smi", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits", "-lms", "200"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except OSError:
        yield
        return

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with suppress(ValueError):
                seen.append((time.perf_counter(), *map(float, line.split(","))))

    Thread(target=read, daemon=True).start()
    try:
        yield
    finally:
        process.terminate()


class Calls:
    """Notes when each call of a model starts and ends, by the device's clock (on the CPU: the host's)."""

    def __init__(self, model: Denoiser) -> None:
        self.host: list[float] = []
        self._marks: list[torch.cuda.Event | float] = []
        self._cuda = model.device.type == "cuda"
        self._handles = (model.register_forward_pre_hook(self._mark), model.register_forward_hook(self._mark))

    def _mark(self, *_: object) -> None:
        self.host.append(time.perf_counter())
        if self._cuda:
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(self.host[-1])

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def milliseconds(self) -> list[float]:
        """Of each call, and between it and the next: 2 n - 1 of n calls."""
        if not self._cuda:
            return [1e3 * (then - now) for now, then in pairwise(self._marks)]  # type: ignore[operator]
        torch.cuda.synchronize()
        return [now.elapsed_time(then) for now, then in pairwise(self._marks)]  # type: ignore[union-attr, arg-type]


def prepared(network: str, device: torch.device, dtype: torch.dtype, graph: bool, at_once: int) -> NetDrawing:
    """A drawing as `generate` settles it for a long run."""
    model = rs.fast(build(network, device), dtype)
    if graph and device.type == "cuda":
        model.model = GraphedNetwork(model.model, at_once)
    return NetDrawing(model, PLAN, pace=Pace(at_once))


def draw(drawing: NetDrawing, images: int, out: Path | None) -> list[float]:
    """Draws images, and writes them on request; returns when each batch was there."""
    times: list[float] = []
    at_once = drawing.pace.at_once

    def noting(seeds: Sequence[int], advance: Advance = lambda images: None) -> Iterator[Batch]:
        for number, batch in enumerate(drawing.draw(seeds, advance)):
            if number % (at_once // drawing.batch) == 0:
                times.append(time.perf_counter())
            yield batch

    if out is None:
        for _ in noting(range(images)):
            pass
    else:
        ranks = Ranks(0, 1, drawing.net.device)
        store = BlockStore(out, cut(range(images), drawing.batch), {})
        write_missing(store, {"run": {}, "batch": drawing.batch}, noting, ranks, together=at_once // drawing.batch)
    return times


def waits(drawing: NetDrawing) -> list[str]:
    """Where the host waits for the device in a batch, but for its images."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in drawing.draw(range(drawing.pace.at_once)):
                pass
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sorted({f"{Path(each.filename).name}:{each.lineno}: {each.message}" for each in caught})


def quarter_rows(
    times: list[float], milliseconds: list[float], host: list[float], seen: list[tuple[float, ...]], at_once: int
) -> Iterator[tuple[str, ...]]:
    """Cells of each quarter of an arm: the rate, the calls, and the means of what was seen of the device."""
    calls = (len(milliseconds) + 1) // 2
    for quarter in range(QUARTERS):
        first, last = (part * (len(times) - 1) // QUARTERS for part in (quarter, quarter + 1))
        begin, end = (part * calls // QUARTERS for part in (quarter, quarter + 1))
        if first == last or end - begin < 2:
            continue
        rate = (last - first) * at_once / (times[last] - times[first])
        device = [each[1:] for each in seen if times[first] <= each[0] <= times[last]]
        yield (
            f"{rate:.1f}",
            f"{fmean(milliseconds[2 * begin : 2 * end : 2]):.2f}",
            f"{fmean(milliseconds[2 * begin + 1 : 2 * end - 1 : 2]):.3f}",
            f"{1e3 * (host[2 * end - 2] - host[2 * begin]) / (end - begin - 1):.2f}",
            *(f"{fmean(values):.0f}" for values in zip(*device, strict=True)),
        )


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), default="cifar10", show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="Of each arm.")
@click.option("--arms", default=";".join(ARMS), show_default=True, help="With ; between.")
@click.option("--at-once", default=AT_ONCE, show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="A file for the table, too.")
@torch.no_grad()
def main(network: str, seconds: float, arms: str, at_once: int, device: str, out: Path | None) -> None:
    chip = torch.device(device)
    console = Console(width=140, record=True)
    name = torch.cuda.get_device_name() if chip.type == "cuda" else device
    console.print(f"{name}, torch {torch.__version__}; {network}, plan {PLAN}, {at_once} at a time")
    head = ("arm", "images/s", "ms a call", "ms between", "host, ms a call", *FIELDS)
    table = Table(*head, box=None)
    seen: list[tuple[float, ...]] = []
    with tempfile.TemporaryDirectory() as place, watched(seen):
        for arm in arms.split(";"):
            dtype, graph, written = ARMS[arm]
            drawing = prepared(network, chip, dtype, graph, at_once)
            start = time.perf_counter()
            draw(drawing, at_once, None)  # compiles and captures
            first = time.perf_counter() - start
            if chip.type == "cuda" and not table.rows:
                console.print("waits in a batch:", *(waits(drawing) or ["none"]), sep="\n  ", highlight=False)
            start = time.perf_counter()
            draw(drawing, at_once, None)
            batches = max(QUARTERS + 1, round(seconds / (time.perf_counter() - start)))
            calls = Calls(drawing.net)  # type: ignore[arg-type]
            times = draw(drawing, batches * at_once, Path(place) / arm.replace(" ", "-") if written else None)
            calls.remove()
            console.print(f"{arm}: the first batch took {first:.1f} s; {batches} batches")
            for cells in quarter_rows(times, calls.milliseconds(), calls.host, seen, at_once):
                table.add_row(arm, *cells)
    console.print(table)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(console.export_text(), "utf-8")


if __name__ == "__main__":
    main()
