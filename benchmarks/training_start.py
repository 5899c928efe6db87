"""Seconds from the command `train` to its first step, with an empty cache and again, and the speed of its steps.

    python benchmarks/training_start.py --variants kernels,whole,plain --gpus 2 --out out/training-start

Each variant (see training_start_parts.py) runs in processes of its own, twice: with empty folders for what is
compiled, and with what the first run left there. Options of `train` are those of cifar10_edm.sh; nothing is saved.
Without --data the images are random, of CIFAR-10's size and in its format. The table is printed as it grows, and is
OUT/start.txt at the end; OUT has a folder for each run, with what it said and what compiling consisted of.
"""

import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from training_start_parts import VARIANTS

TRAIN = "--parametrization edm --cond --lr 2e-3 --ema-images 1000000 --dropout 0 --save-minutes 100"
# Each process sees one GPU, cuda:0 to it: so all compile the same code, and share what is on disk.
ONE = 'export CUDA_VISIBLE_DEVICES=$LOCAL_RANK LOCAL_RANK=0; exec "$@"'


def write_random(path: Path) -> None:
    """Writes 50,000 random images as CIFAR-10's archive."""
    random = np.random.default_rng(0)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for number in range(1, 6):
            pixels = random.integers(0, 256, (10_000, 3072), np.uint8)
            data = pickle.dumps({"data": pixels, "labels": random.integers(0, 10, 10_000).tolist()}, protocol=3)
            info = tarfile.TarInfo(f"cifar-10-batches-py/data_batch_{number}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def run(command: list[str], environment: dict[str, str], said: Path, limit: float) -> str:
    """Runs a command for a while; returns how it ended."""
    with said.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            command, env={**environment, "STARTED": str(time.time())}, stdout=file, stderr=file, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return f"ended after {limit:.0f} s"
    return "" if code == 0 else f"failed with code {code}"


def describe(notes: Path) -> list[str]:
    """Says what the first process noted; of other processes, their first step."""
    lines = [json.loads(line) for line in (notes / "0.jsonl").read_text("utf-8").splitlines()]
    parts = ", ".join(f"{line['part']} {line['seconds']:.1f}" for line in lines if "part" in line)
    said = [f"    seconds: {parts}"]
    for other in sorted(notes.glob("[1-9]*.jsonl")):
        noted = [json.loads(line) for line in other.read_text("utf-8").splitlines()]
        first = [f"{line['part']} {line['seconds']:.1f}" for line in noted if line.get("part", "").startswith("step")]
        said.append(f"    rank {other.stem}: {', '.join(first)}")
    for line in lines:
        if "median" in line:
            said.append(
                f"    {line['median']:.2f} ms a step ({line['tenth']:.2f} to {line['ninetieth']:.2f}), {line['steps']} "
                f"steps; losses {line['early']:.4f} (steps 10 to 30), {line['late']:.4f} (the last 100), first "
                + " ".join(f"{loss:.5f}" for loss in line["first"])
            )
        if "memory" in line:
            said.append(f"    {line['memory']:.1f} GiB reserved")
    return said


@click.command()
@click.option("--variants", default="kernels", show_default=True, help="With commas between them.")
@click.option("--states", default="cold,warm", show_default=True, help="Of the caches; warm is after cold.")
@click.option("--gpus", default=1, show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="A data set; default: random images.")
@click.option("--batch", default=512, show_default=True, help="Images a step and process.")
@click.option("--steps", default=300, show_default=True)
@click.option("--train", "more", default="", help="More options of train.")
@click.option("--limit", default=120.0, show_default=True, help="Seconds after which a run is ended.")
@click.option("--minutes", default=9.0, show_default=True, help="No run begins that could end later.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
def main(
    variants: str,
    states: str,
    gpus: int,
    device: str,
    data: Path | None,
    batch: int,
    steps: int,
    more: str,
    limit: float,
    minutes: float,
    out: Path,
) -> None:
    end = time.monotonic() + 60 * minutes
    names = variants.split(",")
    if unknown := set(names) - set(VARIANTS):
        raise click.UsageError(f"unknown variants {unknown}; there are {', '.join(VARIANTS)}")
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    if data is None:
        data = out / "random.tar.gz"
        if not data.exists():
            write_random(data)
    report: list[str] = []

    def say(*lines: str) -> None:
        report.extend(lines)
        print("\n".join(lines), flush=True)
        (out / "start.txt").write_text("\n".join(report) + "\n", "utf-8")

    for name in names:
        for state in states.split(","):
            left = end - time.monotonic()
            if left < min(limit, 30):
                say(f"{name}, {state}: no time left")
                continue
            notes = out / f"{name}-{state}"
            caches = out / f"{name}-caches"
            for old in (notes, caches) if state == "cold" else (notes,):
                shutil.rmtree(old, ignore_errors=True)
            notes.mkdir()
            environment: dict[str, Any] = {
                **os.environ,
                "VARIANT": name,
                "NOTES": str(notes),
                "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
                "TRITON_CACHE_DIR": str(caches / "triton"),
                "RESTART_SAMPLING_CACHE": str(caches / "package"),
            }
            command = [sys.executable, str(Path(__file__).with_name("training_start_parts.py")), "train", str(data)]
            command += ["--out", str(notes / "run"), *TRAIN.split(), "--device", device, *more.split()]
            command += ["--batch", str(batch * gpus), "--images", str(batch * gpus * steps), VARIANTS[name]]
            if gpus > 1:
                start = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={gpus}", "--no-python"]
                command = [sys.executable, *start, "bash", "-c", ONE, "rank", *command]
            how = run(command, environment, notes / "said.txt", min(limit, left))
            say(f"{name}, {state}{how and f': {how}'}")
            if (notes / "0.jsonl").exists():
                say(*describe(notes))
            compiling = notes / "0-compiling.txt"
            if state == "cold" and compiling.exists():
                say(*(f"        {line}" for line in compiling.read_text("utf-8").splitlines()[:15]))
            if how.startswith("failed"):
                say(*(f"        {line}" for line in (notes / "said.txt").read_text("utf-8").splitlines()[-25:]))


if __name__ == "__main__":
    main()
