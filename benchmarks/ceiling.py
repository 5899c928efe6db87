"""How near a call of each network comes to the chip's ceiling, by what runs it; and where the rest of the time goes.

    python benchmarks/ceiling.py --minutes 4 --out out/ceiling [--slow] [--device cpu --tiny]

Each network is called with a full batch of random states by each arm, a way to run it. An arm that fails says so, and
the others go on. Arms that compile have a process and an empty cache of their own, and a second process with what the
first has left. The error of an arm is that of its output to the same network in float32, relative.

Predictions for one H100 (780 TFLOP/s of a bfloat16 product, 3.0 TB/s of a copy), a call of 512 images of the 55.7 M
network, 42.4 GFLOP each, written before anything was measured:

- Products and convolutions alone: 21.7 TFLOP, 27.8 ms at the ceiling, 30 ms as cuDNN runs them in channels_last.
- Between them: a tensor of 256 channels of 32 x 32 in float16 has 268 MB, 0.09 ms to read or write. A block has two
  norms (2 passes each) and a sum (3), a block of the decoder also the joining of two tensors and a norm of twice the
  width (6 more). All blocks: 13 ms.
- eager: each norm, SiLU and sum a kernel of its own (19 passes a block), and a copy to channels_last and back around
  each convolution: 108 ms, 26 % of the ceiling. In channels_last: no better, as the norm copies.
- fused (`models.kernels`): 30 + 13 + 3 (attention, resampling, first and last layer) = 46 ms, 60 %.
- a graph of a call: the host needs some 6 ms to launch what takes the device 46, so nothing for the 55.7 M network, and
  a little for the bundled one. A graph over a step: the solver's arithmetic is 0.3 %, so nothing either.
- compiled: 50 to 52 %, as measured before. Each block alone: 2 % less, as nothing is fused across blocks; its 14 kinds
  take as long to compile, one after another, as the whole.
- float8 products: only 1 x 1 convolutions are products, 6 % of the operations, and they are bound by memory.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from functools import cache, partial
from io import StringIO
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import restart_sampling as rs
from restart_sampling.base.numerics import full_float32
from restart_sampling.models.by_name import BUNDLED
from restart_sampling.models.compiled import keep_compiled
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.layers import UNetBlock
from throughput import build, ceiling, milliseconds, one_call, print_kernels

BATCHES = {"cifar10": 512, "imagenet64": 128, "cifar10-small": 512, "tiny": 4}
HALF = torch.float16
Call = Callable[[], object]


@cache
def model_of(network: str, device: torch.device) -> Denoiser:
    return rs.load_model(network, device=device) if network in BUNDLED else build(network, device)


def eager(model: Denoiser, dtype: torch.dtype = HALF, layout: torch.memory_format = torch.preserve_format) -> Denoiser:
    return model.to(dtype=dtype).to(memory_format=layout)  # type: ignore[call-overload]


def fused(model: Denoiser, dtype: torch.dtype = HALF, tile: int = 0, warps: int = 0) -> Denoiser:
    """With the kernels, as `fast` has them, or with norms in other tiles of pixels and by so many warps."""
    if tile:
        from restart_sampling.models import kernels

        kernels._NORM_TILE, kernels._NORM_WARPS = tile, warps
    model = rs.fast(model, dtype)
    if not model.fused:
        raise RuntimeError("the kernels are not used")
    return model


def compiled(model: Denoiser, autotuned: bool = False, **options: Any) -> Denoiser:
    keep_compiled()
    for name, value in options.items():
        os.environ[name] = value
    return rs.fast(model, HALF, compiled=True, autotuned=autotuned)


def blocks_compiled(model: Denoiser) -> Denoiser:
    keep_compiled()
    model = eager(model, HALF, torch.channels_last)
    torch._dynamo.config.recompile_limit = 100
    for module in model.modules():
        if isinstance(module, UNetBlock):
            module.compile(dynamic=False)
    return model


def whole(model: Denoiser, batch: int) -> Call:
    return one_call(model, batch)


def graphed(call: Call) -> Call:
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()

    def replay(keep: Call = call) -> object:  # the call has the tensors that the graph reads
        graph.replay()
        return out

    return replay


def heun_step(model: Denoiser, batch: int) -> Call:
    """A step of Heun's method: two calls."""
    device = model.device
    x = torch.randn(batch, model.channels, model.resolution, model.resolution, dtype=torch.float64, device=device)
    high, low = (torch.full((batch,), level, dtype=torch.float64, device=device) for level in (1.0, 0.8))

    def step() -> Tensor:
        slope = x - model(x, high)
        guess = x - 0.2 * slope
        return x - 0.1 * (slope + (guess - model(guess, low)) / 0.8)

    return step


Arm = tuple[Callable[[Denoiser], Denoiser], Callable[[Denoiser, int], Call], int]
FAST_ARMS: dict[str, Arm] = {  # how the model is made, what is timed, and calls in it
    "eager": (eager, whole, 1),
    "eager, bfloat16": (partial(eager, dtype=torch.bfloat16), whole, 1),
    "eager, channels_last": (partial(eager, layout=torch.channels_last), whole, 1),
    "fused": (fused, whole, 1),
    "fused, bfloat16": (partial(fused, dtype=torch.bfloat16), whole, 1),
    "fused, graph": (fused, lambda model, batch: graphed(one_call(model, batch)), 1),
    "fused, graph of a step": (fused, lambda model, batch: graphed(heun_step(model, batch)), 2),
}
for tile, warps in ((32, 4), (64, 8), (128, 16), (256, 16), (128, 32), (64, 16)):
    FAST_ARMS[f"fused, graph, {tile} x 64 / {warps}"] = (
        partial(fused, tile=tile, warps=warps),
        lambda model, batch: graphed(one_call(model, batch)),
        1,
    )
COMPILED_ARMS: dict[str, Arm] = {
    "compiled": (compiled, whole, 1),
    "compiled, blocks": (blocks_compiled, whole, 1),
}
SLOW_ARMS: dict[str, Arm] = {
    "compiled, autotuned": (partial(compiled, autotuned=True), whole, 1),
    "compiled, max-autotune": (partial(compiled, TORCHINDUCTOR_MAX_AUTOTUNE="1"), whole, 1),
}
ARMS = FAST_ARMS | COMPILED_ARMS | SLOW_ARMS


def timings(call: Call, device: torch.device, repeats: int) -> list[float]:
    """Milliseconds of each repeat."""
    if device.type == "cuda":
        return milliseconds(call, repeats)
    times = []
    for _ in range(2):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return times


def measure(arm: str, network: str, batch: int, device: torch.device, repeats: int, profiled: bool) -> dict[str, Any]:
    """One arm; what is known of it, for JSON."""
    prepare, make, calls = ARMS[arm]
    model = deepcopy(model_of(network, device))
    start = time.perf_counter()
    model = prepare(model)
    call = make(model, batch)
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    first = time.perf_counter() - start
    times = [each / calls for each in timings(call, device, repeats)]
    said: dict[str, Any] = {"arm": arm, "network": network, "batch": batch, "first": first, "ms": times}
    said["error"] = error(model, model_of(network, device), batch)
    if profiled and device.type == "cuda":
        kernels = StringIO()
        with redirect_stdout(kernels):
            print_kernels(call)
        said["kernels"] = kernels.getvalue()
    return said


def error(model: Denoiser, exact: Denoiser, batch: int) -> float:
    """Of what the network adds to the skip around it, for noise levels from 0.1 to 30."""
    torch.manual_seed(1)
    count = min(16, batch)
    x = torch.randn(count, model.channels, model.resolution, model.resolution, dtype=torch.float64, device=model.device)
    sigma = torch.logspace(-1, 1.5, count, dtype=torch.float64, device=model.device)
    x = x * sigma[:, None, None, None]
    with full_float32():
        rest = exact.coefficients(sigma).c_skip[:, None, None, None] * x
        expected = exact(x, sigma) - rest
    repeats = batch // count  # as what is compiled is for one size of batch
    out = model(x.repeat(repeats, 1, 1, 1), sigma.repeat(repeats))[:count] - rest
    return ((out - expected).norm() / expected.norm()).item()


def grey_levels(device: torch.device, images: int) -> str:
    """What an arm's images differ from those of float32, for the bundled model, mean and largest of all values."""
    drawn = {}
    for name, prepare in (("float32", None), ("eager", eager), ("fused", fused)):
        model = deepcopy(model_of("cifar10-small", device))
        model = prepare(model) if prepare else model
        drawn[name] = torch.cat([batch.images for batch in rs.generate(model, seeds=range(images))]).double()
    differences = {name: (each - drawn["float32"]).abs() for name, each in drawn.items() if name != "float32"}
    return "; ".join(f"{name}: mean {each.mean():.4f}, largest {each.max():.0f}" for name, each in differences.items())


def in_float8(a: Tensor, b: Tensor) -> Tensor:
    one = torch.ones((), device=a.device)
    return torch._scaled_mm(a, b.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=True)


def ceilings() -> dict[str, float]:
    """Operations and bytes a second of a large product and a large copy; and of products in 8 bits."""
    device = torch.device("cuda")
    found = {"product": ceiling()}
    source = torch.randn(2**30, device=device, dtype=torch.float32)
    target = torch.empty_like(source)
    found["copy"] = 2 * source.nbytes / (median(milliseconds(lambda: target.copy_(source))) / 1e3)
    for name, (rows, inner, columns) in {"8192": (8192, 8192, 8192), "a skip": (512 * 1024, 512, 256)}.items():
        a = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
        b = torch.randn(columns, inner, device=device, dtype=torch.bfloat16)
        a8, b8 = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn)
        for kind, call in {
            "bfloat16": lambda a=a, b=b: a @ b.T,
            "float8": lambda a8=a8, b8=b8: in_float8(a8, b8),
            "float8 with the rounding to it": lambda a=a, b8=b8: in_float8(a.to(torch.float8_e4m3fn), b8),
        }.items():
            found[f"{kind} {name}"] = 2 * rows * inner * columns / (median(milliseconds(call)) / 1e3)
    return found


def floor(model: Denoiser, batch: int, product: float, copy: float) -> tuple[float, float]:
    """Milliseconds that the convolutions and products take at the ceilings, and what is between them.

    Between them: a norm reads and writes, a sum reads twice and writes, a joining reads and writes.
    """
    seconds = {"inside": 0.0, "between": 0.0}

    def size(tensor: Tensor) -> float:
        return 2.0 * batch * tensor.numel()

    def convolution(module: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        operations = 2.0 * batch * out.numel() * module.weight[0].numel()
        seconds["inside"] += max(operations / product, (size(inputs[0]) + size(out)) / copy)

    def norm(module: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        seconds["between"] += 2 * size(out) / copy

    def block(module: Any, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        joined = 2 * size(inputs[0]) * (module.skip is not None and inputs[0].shape[1] > out.shape[1])
        seconds["between"] += (3 * size(out) * (2 if module.heads else 1) + joined) / copy

    handles = []
    for module in model.modules():
        hook = {nn.GroupNorm: norm, UNetBlock: block, nn.Conv2d: convolution, nn.Linear: convolution}
        for kind, function in hook.items():
            if isinstance(module, kind):
                handles.append(module.register_forward_hook(function))
    one_call(model, 1)()
    for handle in handles:
        handle.remove()
    return 1e3 * seconds["inside"], 1e3 * seconds["between"]


def child(arguments: list[str], cache: Path, seconds: float) -> list[dict[str, Any]]:
    """The JSON lines of a process of this script, which is ended after so many seconds."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_CACHE_DIR")}
    environment["RESTART_SAMPLING_CACHE"] = str(cache)
    command = [sys.executable, __file__, *arguments]
    start = time.monotonic()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=max(seconds, 1))
        out, err = done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        out = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        err = f"ended after {seconds:.0f} s"
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    wall = time.monotonic() - start
    return [
        *lines,
        {"wall": wall, "said": err.strip()[-1500:] if err and not (lines and lines[-1].get("done")) else ""},
    ]


@click.command()
@click.option("--minutes", default=4.0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--networks", default="cifar10,imagenet64,cifar10-small", show_default=True)
@click.option("--arms", default="", help="With ; between; default: all that do not take minutes to compile.")
@click.option("--slow", is_flag=True, help="Also the arms that take minutes to compile, of the first network.")
@click.option("--repeats", default=20, show_default=True)
@click.option("--tiny", is_flag=True, help="The tiny network alone, to try the script.")
@click.option("--child", "of", hidden=True)
@torch.no_grad()
def main(
    minutes: float,
    out: Path,
    device: str,
    networks: str,
    arms: str,
    slow: bool,
    repeats: int,
    tiny: bool,
    of: str | None,
) -> None:
    chip = torch.device(device)
    chosen = ["tiny"] if tiny else networks.split(",")
    if of is not None:
        as_child(of, chosen[0], arms.split(";"), chip, repeats)
        return
    end = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    console = Console(width=150, record=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    def left() -> float:
        return end - time.monotonic()

    common = ["--out", str(out), "--device", device, "--repeats", str(repeats)]
    product, copy = 780e12, 3.0e12
    with tempfile.TemporaryDirectory() as place:
        if chip.type == "cuda":
            *found, last = child([*common, "--child", "ceilings"], Path(place) / "fast", 90)
            for each in found:
                for name, rate in each.get("ceilings", {}).items():
                    say(f"{name}: {rate / 1e12:.2f} T a second")
                    product, copy = (rate if name == "product" else product), (rate if name == "copy" else copy)
            say(last["said"])
        results: list[dict[str, Any]] = []
        operations = {}
        for network in chosen:
            model, batch = model_of(network, chip), BATCHES[network]
            with FlopCounterMode(display=False) as counter:
                one_call(model, 1)()
            operations[network] = counter.get_total_flops()
            inside, between = floor(model, batch, product, copy)
            say(
                f"{network}: {operations[network] / 1e9:.1f} GFLOP a call and image; floor of a call of {batch}: "
                f"convolutions and products {inside:.1f} ms, between them {between:.1f} ms"
            )
        groups = [(network, list(FAST_ARMS)) for network in chosen]
        groups += [(chosen[0], [arm]) for arm in (*COMPILED_ARMS, *(SLOW_ARMS if slow else ()))]
        for network, group in groups:
            wanted = [arm for arm in group if not arms or arm in arms.split(";")]
            for kind in ("cold", "warm") if group[0] not in FAST_ARMS else ("",):
                if not wanted or left() < 5:
                    continue
                cache = Path(place) / ("fast" if not kind else group[0])
                given = [*common, "--networks", network, "--arms", ";".join(wanted), "--child", "arms"]
                *lines, last = child([*given, "--tiny"] if network == "tiny" else given, cache, left())
                for line in lines:
                    if "arm" in line:
                        results.append({**line, "kind": kind, "operations": operations[network]})
                    for key in ("failed", "said"):
                        if key in line:
                            say(line[key])
                if last["said"]:
                    say(f"{network}, {', '.join(wanted)}: {last['said']}")
            (out / "ceiling.json").write_text(json.dumps(results), "utf-8")
        for each in results:
            if "kernels" in each:
                say(f"\n{each['network']}, {each['arm']} ({each['kind']}):\n{each['kernels']}")
        for network in chosen:
            say(f"\n{network}")
            console.print(table([each for each in results if each["network"] == network], product))
    (out / "ceiling.txt").write_text(console.export_text(), "utf-8")


def table(results: list[dict[str, Any]], product: float) -> Table:
    shown = Table(
        *(
            "arm",
            "cache",
            "batch",
            "first call, s",
            "ms a call",
            "spread",
            "images/s and call",
            "of the ceiling",
            "error",
        ),
        box=None,
    )
    for each in results:
        times, batch = each["ms"], each["batch"]
        rate = 1e3 * batch / median(times)
        share = f"{rate * each['operations'] / product:.1%}"
        spread = f"{min(times):.2f} to {max(times):.2f}"
        cells = (f"{each['first']:.1f}", f"{median(times):.2f}", spread, f"{rate:.0f}", share, f"{each['error']:.1e}")
        shown.add_row(each["arm"], each["kind"], str(batch), *cells)
    return shown


def as_child(of: str, network: str, arms: list[str], device: torch.device, repeats: int) -> None:
    """Does the work of a process, and prints JSON lines."""

    def tell(**said: Any) -> None:
        print(json.dumps(said), flush=True)

    def guarded(what: str, work: Callable[[], dict[str, Any]]) -> None:
        try:
            tell(**work())
        except Exception as failure:
            tell(failed=f"{what} failed: {type(failure).__name__}: {str(failure)[-600:]}")

    if of == "ceilings":
        guarded("the ceilings", lambda: {"ceilings": ceilings()})
    else:
        for arm in arms:
            profiled = arm in ("fused, graph", "compiled", "compiled, autotuned")
            work = partial(measure, arm, network, BATCHES[network], device, repeats, profiled)
            guarded(f"{network}, {arm}", work)
        if arms[0] in FAST_ARMS:
            if network == "cifar10-small":
                guarded("the grey levels", lambda: {"said": grey_levels(device, 256)})
            if network == "cifar10" and device.type == "cuda":
                guarded("batches", lambda: {"said": by_batch(network, device)})
    tell(done=True)


def by_batch(network: str, device: torch.device) -> str:
    model = fused(deepcopy(model_of(network, device)))
    rates = {}
    for batch in (16, 32, 64, 128, 256, 512, 1024):
        rates[batch] = 1e3 * batch / median(milliseconds(graphed(one_call(model, batch))))
    return "fused, graph, images/s and call by batch: " + ", ".join(
        f"{batch} {rate:.0f}" for batch, rate in rates.items()
    )


if __name__ == "__main__":
    main()
