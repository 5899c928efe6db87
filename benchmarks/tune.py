"""What tuning brings: searches, maps, controls, transfer and rivals for the models of the package, on 1 to 8 GPUs.

    python benchmarks/tune.py run REF.npz DETECTOR OUT --confirm D2 R2 --data IMAGES --gpus 0,1,2 --minutes 20
    python benchmarks/tune.py run ... --dry-run                what would be done, with times
    python benchmarks/tune.py table OUT/all.json               the tables of what is there, for RESULTS.md
    python benchmarks/tune.py figure EDM=map.json VP=map.json PFGM++=map.json --out docs/restart-map.png

Jobs are taken by priority, one process for each GPU. A job is begun where its time fits, is ended when the minutes are
over, and goes on where the same command is given again (`--later`: the minutes of those to come). The last lines name
what is left. OUT/all.json has all that was found so far.
"""

import csv
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click
import torch

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import write_json
from restart_sampling.comparison.named_plans import read_rows
from restart_sampling.pictures.restart_map import plot_maps
from restart_sampling.pictures.style import save_figure
from restart_sampling.sampling.plan import Plan
from restart_sampling.tuning.allowed import LEAST_STEPS
from restart_sampling.tuning.budget import main_steps, restart_calls
from restart_sampling.tuning.own_levels import with_levels
from tune_tables import CONTROL, RIVAL, ROLES, TRANSFER, TUNED, UNTUNED, USUAL, gather, print_tables

HERE = Path(__file__).parent
MODELS = ("cifar10-small", "cifar10-vp-small", "cifar10-pfgmpp-small")
NFES = (20, 10, 40)
"""The most wanted first: a search may be cut off."""
CONTROLS = {
    "start-1": ["--start", "1"],
    "start-2": ["--start", "2"],
    "random": ["--search", "random"],
    "no-rises": ["--no-rises"],
    "no-restarts": ["--no-restarts"],
}
"""Options of other searches with the same budget, which do not begin with what was found before."""
FRESH = 200_000
"""First seed of comparisons: no search uses it."""
START = 0.6
"""Minutes until a process draws: imports, and a network that is compiled or read from the cache."""
PATIENCE = 180
"""Seconds for which a GPU is kept free for a job whose file somebody else is making."""
LEAST = 1.5
"""Minutes below which nothing is begun."""


@dataclass(frozen=True)
class Given:
    """What the user gives.

    Attributes:
        out: a folder.
        measure: options of every command that measures.
        second: likewise, with the second detector.
        confirm: options of every search.
        data: true images with classes, for the maps.
        each: minutes of a search for each NFE.
        long: likewise, of the longer ones.
    """

    out: Path
    measure: list[str]
    second: list[str]
    confirm: list[str]
    data: Path | None
    each: float
    long: float


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: of its folder and its log.
        minutes: that it takes on one H100, as estimated.
        words: makes the words of the command, when what it reads is there.
        after: names of the jobs whose files it reads.
        file: that somebody else is making.
        rows: whether what it has made by then is of use where it is cut off.
    """

    name: str
    minutes: float
    words: Callable[[], list[str]]
    after: tuple[str, ...] = ()
    file: Path = HERE
    rows: bool = False


def jobs(given: Given) -> list[Job]:
    """Lists all jobs, the most wanted first."""
    edm, vp, pfgmpp = MODELS

    def controlled(nfe: int, *kinds: str) -> list[Job]:
        words = {kind: ["--from-scratch", *CONTROLS[kind]] for kind in kinds}
        return [tune(given, edm, [nfe], f"-{nfe}-{kind}", given.long, words[kind], images=1000) for kind in kinds]

    def longer(model: str, *nfes: int) -> list[Job]:
        return [tune(given, model, [nfe], f"-{nfe}-long", given.long, images=1000) for nfe in nfes]

    return [
        *(tune(given, model, NFES, "", given.each) for model in (vp, pfgmpp)),
        *(map_of(given, model) for model in (vp, pfgmpp)),
        *controlled(20, "random", "no-rises", "no-restarts", "start-1"),
        controls(given, edm, 20),
        *longer(vp, 40),
        *controlled(40, "random", "no-rises", "no-restarts", "start-1"),
        *(grids(given, model) for model in MODELS),
        *(churn(given, model, nfe) for nfe in NFES for model in MODELS),
        controls(given, edm, 40),
        *(compare(given, model) for model in MODELS),
        *(second(given, model) for model in MODELS),
        *longer(edm, 20, 40),
        *longer(pfgmpp, 40, 20),
        *longer(vp, 20),
        *(job for model in MODELS for job in longer(model, 10)),
        *(job for nfe in (20, 40) for job in controlled(nfe, "start-2")),
    ]


def tune(
    given: Given,
    model: str,
    nfes: Sequence[int],
    suffix: str,
    each: float,
    more: Sequence[str] = (),
    images: int = 500,
) -> Job:
    """The search for each NFE; with more time a trial has more images, which a polish fits less."""
    name = f"{model}{suffix}"
    words = ["tune", "--model", model, "--nfe", ",".join(map(str, nfes)), "--minutes", f"{each:g}"]
    words += [*given.measure, *given.confirm, "--images", str(images), *more, "--out", str(given.out / name)]
    return Job(name, 0.3 + len(nfes) * (each + 0.1), lambda: words, file=Path(given.confirm[-1]))


def map_of(given: Given, model: str) -> Job:
    """The map of restarts, of 3,000 images each, with the drift of the ODE."""
    words = ["tune", "--model", model, "--map", *(["--data", str(given.data)] if given.data else []), *given.measure]
    return Job(f"{model}-map", START + 3.5, lambda: [*words, "--out", str(given.out / f"{model}-map")])


def grids(given: Given, model: str) -> Job:
    """The levels of stage 0, which are GITS's idea."""
    words = ["tune", "--model", model, "--without-reference", "--nfe", "40", "--batch", "256"]
    return Job(f"{model}-grids", 1.5, lambda: [*words, "--out", str(given.out / f"{model}-grids")])


def churn(given: Given, model: str, nfe: int) -> Job:
    """EDM's sampler, with the churn and the grid that the same search finds for it in the same time."""
    own = ["--from-scratch", "--solvers", "heun", "--no-restarts"]
    return tune(given, model, [nfe], f"-{nfe}-churn", given.long, own, images=1000)


def compare(given: Given, model: str) -> Job:
    """The found plans beside plans of any NFE, rivals, and the plans of other models and other NFE."""
    name = f"{model}-compared"
    words = lambda: sweep(given, name, model, given.measure, plans_of(given.out, model), 5000, FRESH)  # noqa: E731
    others = (f"{model}-grids", *(f"{model}-{nfe}-churn" for nfe in NFES))
    return Job(name, START + 6.8, words, (*others, *searches(MODELS)), rows=True)


def second(given: Given, model: str) -> Job:
    """The found plans, those of other models and NFE, and the best usual ones, by the second detector."""

    def words() -> list[str]:
        rows = plans_of(given.out, model)
        own = {plan: row for plan, row in rows.items() if {TUNED, USUAL, TRANSFER} & set(row[1].split(ROLES))}
        return sweep(given, f"{model}-second", model, given.second, own, 5000, FRESH)

    return Job(f"{model}-second", START + 1.2, words, searches(MODELS), Path(given.confirm[-1]), rows=True)


def searches(models: Sequence[str]) -> tuple[str, ...]:
    """Names the jobs whose plans are compared."""
    return tuple(f"{model}{suffix}" for model in models for suffix in ("", *(f"-{nfe}-long" for nfe in NFES)))


def controls(given: Given, model: str, nfe: int) -> Job:
    """What the other searches with the same budget found."""
    runs = [f"{model}-{nfe}-{kind}" for kind in CONTROLS]
    name = f"{model}-{nfe}-controls"

    def words() -> list[str]:
        kept = found(given.out, model, nfe)
        rows = (
            [(kept["plan"], f"tuned {nfe}", TUNED), (kept["evidence"]["usual"], f"best usual {nfe}", USUAL)]
            if kept
            else []
        )
        rows += [(each["plan"], run, CONTROL) for run in runs if (each := found(given.out, run, nfe))]
        return sweep(given, name, model, given.measure, together(rows), 10_000, FRESH)

    return Job(name, START + 0.03 * nfe, words, tuple(runs))


def sweep(
    given: Given,
    name: str,
    model: str,
    measure: list[str],
    plans: dict[str, tuple[str, str]],
    images: int,
    first: int,
) -> list[str]:
    """Writes plans, with their names and families, for a sweep over them; returns its words."""
    path = given.out / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("plan", "name", "family"))
        writer.writerows((plan, *row) for plan, row in plans.items())
    seeds = ["--images", str(images), "--blocks", "1", "--first-seed", str(first)]
    return ["sweep", "--model", model, *measure, "--plans", str(path), *seeds, "--out", str(given.out / name)]


def plans_of(out: Path, model: str) -> dict[str, tuple[str, str]]:
    """Names and families of each plan of a comparison."""
    rows: list[tuple[str, str, str]] = []
    for nfe in NFES:
        if own := found(out, model, nfe):
            rows.append((own["plan"], f"tuned {nfe}", TUNED))
            rows.append((own["evidence"]["usual"], f"best usual {nfe}", USUAL))
    for nfe in NFES:
        rows += [(plan, f"{name} {nfe}", RIVAL) for plan, name in rivals(out, model, nfe)]
    for other in MODELS:
        for nfe in NFES:
            if content := found(out, other, nfe):
                kept = [at(Plan.parse(content["plan"]), own) for own in (NFES if other == model else [nfe])]
                names = [f"{other} {nfe} at {own}" for own in (NFES if other == model else [nfe])]
                rows += [(str(plan), name, TRANSFER) for plan, name in zip(kept, names, strict=True) if plan]
    known = [row.plan for row in read_rows(str(HERE / "plans" / "best-10-20-40-80.txt"))]
    known += [Plan(80, solver=solver) for solver in ("sa", "ddpm", "deis")]
    rows += [(str(plan), str(plan), UNTUNED) for plan in known]
    return together(rows)


def together(rows: Sequence[tuple[str, str, str]]) -> dict[str, tuple[str, str]]:
    """Joins the names and the families that a plan has in several rows."""
    roles: dict[str, dict[str, str]] = {}
    for plan, name, family in rows:
        roles.setdefault(plan, {})[name] = family
    return {plan: (ROLES.join(own), ROLES.join(own.values())) for plan, own in roles.items()}


def found(out: Path, model: str, nfe: int) -> dict[str, Any] | None:
    """Reads the plan that was found here or is kept of an earlier search, rather one that beats the usual ones."""
    folders = (out / f"{model}-{nfe}-long", out / model, HERE / "results" / f"{model}-tuned")
    paths = (folder / f"plan-{nfe}.json" for folder in folders)
    there = [dict(json.loads(path.read_text("utf-8"))) for path in paths if path.exists()]
    return max(there, key=lambda content: bool(content["evidence"]["better"]), default=None)


def at(plan: Plan, nfe: int) -> Plan | None:
    """Returns the plan with as many main steps as make it take `nfe` evaluations; None: its intervals do not fit."""
    solver, restart_solver = plan.solver, plan.restart_solver or plan.solver
    falls = sum(each.repeats * (each.points - 1) for each in plan.intervals)
    steps = main_steps(solver, nfe - falls * restart_calls(restart_solver))
    with suppress(InputError):
        if steps and steps >= LEAST_STEPS:
            other = replace(plan, steps=steps)
            return other if other.path().nfe(*other.solvers) in (nfe - 1, nfe) else None
    return None


def rivals(out: Path, model: str, nfe: int) -> Iterator[tuple[str, str]]:
    """Yields plans of other people's methods, and their names."""
    levels = out / f"{model}-grids" / "levels.json"
    if levels.exists():
        kept = json.loads(levels.read_text("utf-8"))["grids"]
        for solver, name in (("ipndm", "GITS, iPNDM"), ("deis", "GITS, DEIS")):
            yield str(with_levels(Plan(nfe, solver=solver), kept[solver][str(nfe)])), name
    for solver, name in (
        ("sde_dpmpp_2m", "SDE-DPM-Solver++(2M)"),
        ("sa", "SA-Solver"),
        ("sa:tau=0.5", "SA-Solver, 0.5"),
    ):
        yield str(Plan(nfe, solver=solver)), name
    if content := found(out, f"{model}-{nfe}-churn", nfe):
        yield content["plan"], "EDM, churn"


@dataclass
class Jobs:
    """What is to be done, and how far it is; kept in a file between starts.

    Attributes:
        all: by priority.
        path: of the file.
        deadline: on the clock of `time.monotonic`.
        later: minutes of the starts to come.
        seconds: that each job has had.
        states: of the jobs that are done, run or failed.
        idle: GPUs without a job.
        began: when this start did.
    """

    all: list[Job]
    path: Path
    deadline: float
    later: float
    seconds: dict[str, float] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    idle: int = 0
    began: float = field(default_factory=time.monotonic)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def __post_init__(self) -> None:
        self.seconds, states = self._kept()
        self.states = {name: state for name, state in states.items() if state == "done"}

    def _kept(self) -> tuple[dict[str, float], dict[str, str]]:
        kept = json.loads(self.path.read_text("utf-8")) if self.path.exists() else {"seconds": {}, "states": {}}
        return kept["seconds"], kept["states"]

    @property
    def left(self) -> float:
        """Minutes of this start."""
        return (self.deadline - time.monotonic()) / 60

    def remaining(self, job: Job) -> float:
        """Estimates the minutes that a job still takes."""
        return max(job.minutes - self.seconds.get(job.name, 0) / 60, min(job.minutes, START + 0.5))

    def take(self) -> Job | None:
        """Returns the most wanted job that can be begun, when there is one; None: there will be none.

        One that waits for somebody else's file keeps a GPU free of less wanted ones. One that reads what others find
        waits for those of them that are more wanted and fit into the time.
        """
        with self.changed:
            self.idle += 1
            try:
                while self.left > LEAST:
                    open_ = [job for job in self.all if job.name not in self.states]
                    fit = [job for job in open_ if job.rows or self.remaining(job) <= self.left + self.later]
                    kept, pending = 0, {name for name, state in self.states.items() if state == "runs"}
                    for job in fit:
                        kept += not job.file.exists() and time.monotonic() < self.began + PATIENCE
                        if job.file.exists() and pending.isdisjoint(job.after) and self.idle > kept:
                            self.states[job.name] = "runs"
                            return job
                        pending.add(job.name)
                    if not fit or ("runs" not in self.states.values() and not kept):
                        return None
                    self.changed.wait(timeout=1)
            finally:
                self.idle -= 1
        return None

    def ended(self, job: Job, state: str, seconds: float) -> None:
        """Takes note of what became of a job."""
        with self.changed:
            self.states[job.name] = state
            self.seconds[job.name] = self.seconds.get(job.name, 0) + seconds
            others, states = self._kept()  # of another start in the same folder, too
            own = {name: state for name, state in self.states.items() if state != "runs"}
            write_json(self.path, {"seconds": {**others, **self.seconds}, "states": {**states, **own}})
            print(f"{job.name}: {state}, {self.seconds[job.name]:.0f} s of {60 * job.minutes:.0f}", flush=True)
            self.changed.notify_all()

    def print_rest(self) -> None:
        """Names what is left undone."""
        for job in self.all:
            if (state := self.states.get(job.name, "not begun")) != "done":
                print(f"left: {job.name}, {state}, about {self.remaining(job):.1f} minutes more")


def work(todo: Jobs, gpu: str, out: Path) -> None:
    """Runs jobs on a GPU until there is none, or no time; what a job prints is in OUT/NAME.log."""
    threads = max(1, (os.cpu_count() or 1) // max(1, torch.cuda.device_count()))
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": gpu, "OMP_NUM_THREADS": str(threads)}
    while job := todo.take():
        start, state = time.monotonic(), "failed"
        with (out / f"{job.name}.log").open("a", encoding="utf-8") as log:
            try:
                command = [sys.executable, "-m", "restart_sampling", *job.words()]
                left = todo.deadline - time.monotonic()
                subprocess.run(command, env=environment, stdout=log, stderr=log, check=True, timeout=left)
                state = "done"
            except subprocess.TimeoutExpired:
                state = "cut off"
            except Exception:  # of a file that is not as it should be, too: the other jobs are not concerned
                traceback.print_exc(file=log)
        todo.ended(job, state, time.monotonic() - start)


@click.group()
def main() -> None:
    pass


@main.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("detector")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--confirm", nargs=2, required=True, metavar="DETECTOR REFERENCE", help="That the searches never see.")
@click.option("--data", type=click.Path(path_type=Path), help="True images with classes, for the maps.")
@click.option("--minutes", "whole", default=20.0, show_default=True, help="In all; then what runs is ended.")
@click.option("--later", default=0.0, show_default=True, help="Minutes in all of the same command, given again.")
@click.option("--each", default=4.0, show_default=True, help="Minutes of a search for each NFE.")
@click.option("--long", "long_", default=10.0, show_default=True, help="Likewise, of the longer searches.")
@click.option("--gpus", default="0", show_default=True, help="Their numbers, with commas between.")
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Names of jobs, such as 'cifar10-vp-*'; may be repeated."
)
@click.option("--options", default="--batch 250 --compile", show_default=True, help="Of each command that measures.")
@click.option("--dry-run", is_flag=True, help="Print the jobs with their times.")
def run(
    reference: Path,
    detector: str,
    out: Path,
    confirm: tuple[str, str],
    data: Path | None,
    whole: float,
    later: float,
    each: float,
    long_: float,
    gpus: str,
    only: tuple[str, ...],
    options: str,
    dry_run: bool,
) -> None:
    """Do the jobs, or as many as there is time for."""
    deadline = time.monotonic() + 60 * whole
    measure, second_measure = (
        ["--reference", str(r), "--detector", d, "--trust-detector", *options.split()]
        for d, r in ((detector, reference), confirm)
    )
    words = ["--confirm-detector", confirm[0], "--confirm-reference", confirm[1]]
    given = Given(out, measure, second_measure, words, data, each, long_)
    wanted = [job for job in jobs(given) if not only or any(fnmatchcase(job.name, each) for each in only)]
    todo = Jobs(wanted, out / "jobs.json", deadline, later)
    if dry_run:
        print("| job | minutes of one H100 | in all |\n|---|---|---|")
        total = 0.0
        for job in (each for each in wanted if each.name not in todo.states):
            total += todo.remaining(job)
            print(f"| {job.name} | {todo.remaining(job):.1f} | {total:.0f} |")
        return
    out.mkdir(parents=True, exist_ok=True)
    threads = [threading.Thread(target=work, args=(todo, gpu, out)) for gpu in gpus.split(",")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write_json(out / "all.json", gather(out, HERE / "results"))
    todo.print_rest()


@main.command()
@click.argument("file", type=click.Path(exists=True, path_type=Path, dir_okay=False))
def table(file: Path) -> None:
    """Print the tables of a file of `run`, as Markdown."""
    print_tables(json.loads(file.read_text("utf-8")))


@main.command()
@click.argument("maps", nargs=-1, required=True, metavar="TITLE=MAP.json...")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A picture.")
def figure(maps: tuple[str, ...], out: Path) -> None:
    """Draw the maps of models side by side."""
    named = {
        title: json.loads(Path(path).read_text("utf-8")) for title, _, path in (each.partition("=") for each in maps)
    }
    save_figure(plot_maps(named), out)


if __name__ == "__main__":
    main()
