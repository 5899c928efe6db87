"""Where the seconds go that `generate` takes before it draws: whole processes, an EDM pickle of the 55.7 M network.

    python benchmarks/start.py --minutes 1.5 --out out/start [--device cpu --network tiny]

Writes a table, and the calls (cProfile) and imports (-X importtime) of one run each. The first run finds empty caches.
It and the second say when their parts began and ended, in seconds since the start of the process.
"""

import os
import pstats
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import click

from defaults import PLAN, write_pickle
from throughput import NETWORKS


def run(command: list[str], folder: Path, cache: Path, limit: float) -> tuple[dict[str, float], str]:
    """Seconds from the start of a process to its settings, its first image, its last and its end; what it said."""
    environment = {key: value for key, value in os.environ.items() if not key.endswith("_CACHE_DIR")}
    environment["RESTART_SAMPLING_CACHE"] = str(cache)
    start = time.time()
    environment["STARTED"] = str(start)
    seconds: dict[str, float] = {}
    said: list[str] = []
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.startswith("model "):
                seconds["settings"] = time.time() - start
            if time.time() - start > limit:
                process.terminate()
        process.wait()
    seconds["end"] = time.time() - start
    appeared = sorted(path.stat().st_mtime - start for path in folder.glob("**/*.png"))
    if appeared:
        seconds |= {"first image": appeared[0], "last image": appeared[-1]}
    return seconds, "".join(said)


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), default="cifar10", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--images", default=1024, show_default=True)
@click.option("--minutes", default=1.5, show_default=True)
def main(network: str, out: Path, device: str, images: int, minutes: float) -> None:
    end = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    report = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        model = place / "model.pkl"
        write_pickle(network, model)
        profile = place / "calls.profile"
        parts = str(Path(__file__).with_name("start_parts.py"))
        kinds = {
            "empty caches": [parts],
            "again": [parts],
            "calls": ["-m", "cProfile", "-o", str(profile), "-m", "restart_sampling"],
            "imports": ["-X", "importtime", "-m", "restart_sampling"],
        }
        for name, options in kinds.items():
            folder = place / name.replace(" ", "-")
            command = [sys.executable, *options, "generate", "--model", str(model)]
            command += ["--plan", PLAN, "--seeds", f"0-{images - 1}", "--out", str(folder), "--device", device]
            left = end - time.monotonic()
            if left < 5:
                break
            seconds, said = run(command, folder, place / "cache", left)
            report.append(f"{name}: " + ", ".join(f"{what} after {value:.2f} s" for what, value in seconds.items()))
            plain = [line for line in said.splitlines() if not line.startswith("import time:")]
            report.append("    " + "\n    ".join(plain))
            if name == "imports":
                imports = [
                    line for line in said.splitlines() if line.startswith("import time:") and "cumul" not in line
                ]
                imports.sort(key=lambda line: -int(line.split("|")[1]))
                (out / "imports.txt").write_text("\n".join(imports[:150]), "utf-8")
        with suppress(OSError, TypeError), (out / "calls.txt").open("w", encoding="utf-8") as file:
            stats = pstats.Stats(str(profile), stream=file)
            stats.sort_stats("cumulative").print_stats(150)
            stats.sort_stats("tottime").print_stats(60)
    (out / "start.txt").write_text("\n".join(report), "utf-8")
    print("\n".join(report))
    with suppress(OSError):
        print("\n".join((out / "calls.txt").read_text("utf-8").splitlines()[:70]))


if __name__ == "__main__":
    main()
