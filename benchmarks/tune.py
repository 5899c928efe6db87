"""What tuning brings: searches, controls, transfer and rivals for the models of the package, on 1 to 4 GPUs.

    python benchmarks/tune.py search   REF.npz DETECTOR OUT [--confirm D2 R2]   three models at 10, 20, 40
    python benchmarks/tune.py controls REF.npz DETECTOR OUT [--confirm D2 R2]   random search; no rises, at 10 and 20
    python benchmarks/tune.py starts   REF.npz DETECTOR OUT                     TPE, CMA-ES and random, two starts each
    python benchmarks/tune.py maps     REF.npz DETECTOR OUT --data IMAGES       the map of each model
    python benchmarks/tune.py transfer REF.npz DETECTOR OUT                     found plans on the other models
    python benchmarks/tune.py grids    REF.npz DETECTOR OUT                     levels of stage 0, which rivals need
    python benchmarks/tune.py rivals   REF.npz DETECTOR OUT                     GITS, churn, SDE solvers at 10, 20, 40

Jobs are dealt to the GPUs, one process each. The same command goes on after an interruption, so a lease that ends in
the middle is no loss; at `--minutes 8` for each NFE, `search` takes 24 minutes on three GPUs. `transfer` and `rivals`
read what `search` and `grids` wrote. Each ends with tables from the files, and `table` prints them again.
"""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import click

from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.evaluation.results_file import read_results
from restart_sampling.tuning.budget import main_steps

MODELS = ("cifar10-small", "cifar10-vp-small", "cifar10-pfgmpp-small")
NFES = (10, 20, 40)
CHURN_WINDOWS = ((0.01, 1.0), (0.05, 50.0), (0.5, 20.0))
Job = tuple[str, list[str]]
"""A name for the log, and the words of a command."""


def search(out: Path, minutes: float, measure: list[str], confirm: list[str], data: Path | None) -> list[Job]:
    nfes = ",".join(map(str, NFES))
    return [_tune(out, model, nfes, minutes, [*measure, *confirm]) for model in MODELS]


def controls(out: Path, minutes: float, measure: list[str], confirm: list[str], data: Path | None) -> list[Job]:
    kinds = {"random": ["--search", "random"], "no-rises": ["--no-rises"]}
    return [
        _tune(out, model, "10,20", minutes, [*measure, *confirm, *words], f"-{kind}")
        for kind, words in kinds.items()
        for model in MODELS[:2]
    ]


def starts(out: Path, minutes: float, measure: list[str], confirm: list[str], data: Path | None) -> list[Job]:
    return [
        _tune(out, MODELS[0], "20", minutes, [*measure, "--search", kind, "--start", str(start)], f"-{kind}-{start}")
        for kind in ("tpe", "cma-es", "random")
        for start in (1, 2)
    ]


def maps(out: Path, minutes: float, measure: list[str], confirm: list[str], data: Path | None) -> list[Job]:
    words = ["--map", *(["--data", str(data)] if data else [])]
    return [
        (f"{model}-map", ["tune", "--model", model, *measure, *words, "--out", str(out / f"{model}-map")])
        for model in MODELS
    ]


def transfer(out: Path, minutes: float, measure: list[str], confirm: list[str], data: Path | None) -> list[Job]:
    plans = [json.loads((out / model / "plan-20.json").read_text())["plan"] for model in MODELS]
    return [_sweep(out / f"{model}-transfer", model, measure, plans) for model in MODELS]


def grids(out: Path, minutes: float, measure: list[str], confirm: list[str], data: Path | None) -> list[Job]:
    speed = measure[5:]  # without reference and detector
    nfes = ",".join(map(str, NFES))
    words = ["--without-reference", "--nfe", nfes, *speed]
    return [
        (f"{model}-grids", ["tune", "--model", model, *words, "--out", str(out / f"{model}-grids")]) for model in MODELS
    ]


def rivals(out: Path, minutes: float, measure: list[str], confirm: list[str], data: Path | None) -> list[Job]:
    jobs = []
    for model in MODELS:
        kept = json.loads((out / f"{model}-grids" / "levels.json").read_text())["grids"]
        for nfe in NFES:
            found = json.loads((out / model / f"plan-{nfe}.json").read_text())
            plans = [found["plan"], found["evidence"]["usual"]]
            plans += [  # GITS with its solver, and with one of ours
                f"{nfe} solver={solver} grid={'/'.join(map(repr, kept[solver][str(nfe)]))}"
                for solver in ("ipndm", "deis")
            ]
            plans += [f"{nfe} solver={solver}" for solver in ("sde_dpmpp_2m", "sa", "sa:tau=0.5", "ddpm")]
            plans += [
                f"{main_steps(solver, nfe)} solver={solver} churn={churn} s_min={low} s_max={high} s_noise=1.003"
                for solver in ("heun", "euler")
                for churn in (2, 5, 10, 20)
                for low, high in CHURN_WINDOWS
            ]
            jobs.append(_sweep(out / f"{model}-rivals-{nfe}", model, measure, plans))
    return jobs


STAGES = {each.__name__: each for each in (search, controls, starts, maps, transfer, grids, rivals)}


def _tune(out: Path, model: str, nfes: str, minutes: float, words: list[str], suffix: str = "") -> Job:
    name = f"{model}{suffix}"
    given = ["tune", "--model", model, "--nfe", nfes, "--minutes", str(minutes), "--out", str(out / name)]
    return name, [*given, *words]


def _sweep(folder: Path, model: str, measure: list[str], plans: list[str]) -> Job:
    words = [word for plan in dict.fromkeys(plans) for word in ("--plans", plan)]
    seeds = ["--images", "5000", "--blocks", "2", "--out", str(folder)]
    return folder.name, ["sweep", "--model", model, *measure, *words, *seeds]


def run(jobs: list[Job], out: Path, gpus: int) -> None:
    """Runs the jobs, each on a GPU of its own; what a job prints is in OUT/NAME.log."""
    free: Queue[int] = Queue()
    for gpu in range(gpus):
        free.put(gpu)
    said = threading.Lock()

    def one(job: Job) -> int:
        name, words = job
        gpu = free.get()
        try:
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)}
            with (out / f"{name}.log").open("a") as log:
                command = [sys.executable, "-m", "restart_sampling", *words]
                code = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
            with said:
                print(f"{name}: {'done' if code == 0 else f'ended with {code}, see its log'}", flush=True)
            return code
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(gpus) as threads:
        codes = list(threads.map(one, jobs))
    if any(codes):
        sys.exit(1)


def table(out: Path) -> None:
    """Prints what is there, as Markdown."""
    print("| run, NFE | plan | by | usual | found | difference | told apart | evaluations | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for path in sorted(out.glob("*/plan-*.json")):
        content = json.loads(path.read_text())
        evidence = content["evidence"]
        for name in evidence["scores"][content["plan"]]:
            print(_line(path, content, evidence, name))
    for results in sorted(out.glob("*/results.jsonl")):
        rows = list(read_results(results))
        print(f"\n{results.parent.name}, to its first row\n\n| plan | distance | difference |\n|---|---|---|")
        for row in rows:
            value, error = paired_difference(row, rows[0])
            print(f"| `{row['plan']}` | {row['frechet_distance']:.3f} | {value:+.3f} +- {error:.3f} |")


def _line(path: Path, content: dict[str, Any], evidence: dict[str, Any], name: str) -> str:
    def mean(plan: str) -> float:
        values = evidence["scores"][plan][name]["values"]
        return float(sum(values) / len(values))

    gain = evidence["gain"].get(name)
    difference = "-" if gain is None else f"{gain['difference']:+.3f} +- {gain['error']:.3f} ({gain['relative']:+.1%})"
    sure = "-" if gain is None else "yes" if gain["told_apart"] else "no"
    cost = evidence["cost"]
    return (
        f"| {path.parent.name}, {content['nfe']} | `{content['plan']}` | {name} | {mean(evidence['usual']):.3f} | "
        f"{mean(content['plan']):.3f} | {difference} | {sure} | {cost['evaluations']:.2g} | {cost['seconds']:.0f} |"
    )


@click.command()
@click.argument("stage", type=click.Choice([*STAGES, "table"]))
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("detector")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--confirm", nargs=2, metavar="DETECTOR REFERENCE", help="That the searches never see.")
@click.option("--data", type=click.Path(path_type=Path), help="True images with classes, for the maps.")
@click.option("--minutes", default=10.0, show_default=True, help="For each NFE.")
@click.option("--gpus", default=1, show_default=True)
@click.option("--options", default="--batch 500 --compile", show_default=True, help="Of each command.")
def main(
    stage: str,
    reference: Path,
    detector: str,
    out: Path,
    confirm: tuple[str, str] | None,
    data: Path | None,
    minutes: float,
    gpus: int,
    options: str,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if stage != "table":
        measure = ["--reference", str(reference), "--detector", detector, "--trust-detector", *options.split()]
        more = ["--confirm-detector", confirm[0], "--confirm-reference", confirm[1]] if confirm else []
        run(STAGES[stage](out, minutes, measure, more, data), out, gpus)
    table(out)


if __name__ == "__main__":
    main()
