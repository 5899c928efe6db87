"""What the search of `tune` should be: TPE, CMA-ES or random search, by trials, on a denoiser that is wrong on purpose.

    OMP_NUM_THREADS=1 python benchmarks/search.py [--nfe 10,20] [--starts 8] [--trials 150] [--searches 'tpe;random']

The data are a mixture of Gaussians in eight dimensions, whose denoiser is exact, plus a smooth error: the network of
EDM's preconditioning answers F + size * sqrt(2) sin(w c_in a.x + phase + v ln(sigma)) for F, with directions a, w,
phases and v of their own for each dimension, and for each start. A search goes by the Fréchet distance of 500 and 1,000
samples in 64 random cosines, which stand for a detector's features: it scatters by as much as that of 2,000 images
does. As `tune --from-scratch` does, it begins with the five best usual plans and has the levels of stage 0. The best of
its ten best on 4,000 other seeds is judged on 40,000 that nothing used. All searches of a start have the same denoiser,
seeds and random trials.

A line is added to a file for each search, and one that is there is not run again; the tables are of all lines.
"""

import json
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean, median, stdev
from tempfile import TemporaryDirectory
from typing import Any

import click
import optuna
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import restart_sampling as rs
from restart_sampling.base.files import append_line
from restart_sampling.base.ranks import Ranks
from restart_sampling.evaluation.distances import frechet_distance
from restart_sampling.evaluation.statistics import statistics_of
from restart_sampling.sampling.net import Net
from restart_sampling.tuning import search as search_module
from restart_sampling.tuning.allowed import SEARCHES
from restart_sampling.tuning.bench import Bench
from restart_sampling.tuning.limits import Limits
from restart_sampling.tuning.objective import Key
from restart_sampling.tuning.of_samples import OfSamples
from restart_sampling.tuning.search import begin_with, best_plans, open_study, search
from restart_sampling.tuning.space import Space
from restart_sampling.tuning.teacher import KeptGrids, Teacher
from restart_sampling.tuning.tune import begin_net

SHAPE = (8,)
SIZE = 0.15
"""Root mean square of the error in the network's answer, which has variance 1."""
FEATURES = 64
FIRST, SECOND, RACE, FRESH = range(500), range(500, 1500), range(10_000, 14_000), range(100_000, 140_000)
RANKS = Ranks(0, 1, torch.device("cpu"))


def tpe(**settings: Any) -> Callable[[int], Any]:
    """Makes Optuna's TPE as `tune` has it but for these settings, of a seed."""
    own = {"n_startup_trials": 25, "multivariate": True, "group": True, "constant_liar": True, **settings}
    return lambda seed: optuna.samplers.TPESampler(seed=seed, **own)


VARIANTS: dict[str, Callable[[int], Any]] = {
    "tpe, 200 candidates": tpe(n_ei_candidates=200),
}
"""Other settings of TPE: what differs from `tune`'s."""


def mixture() -> rs.GaussianMixture:
    """Makes the data: ten Gaussians of std 0.1, together of variance 1."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(10, *SHAPE, generator=generator, dtype=torch.float64)
    means -= means.mean(dim=0)
    return rs.GaussianMixture(means * (0.99 / means.square().mean()).sqrt(), 0.1)


def wrong_net(start: int) -> Net:
    """Makes the mixture's denoiser with an error of its own for each start."""
    generator = torch.Generator().manual_seed(1000 + start)
    (count,), right = SHAPE, mixture()
    directions = torch.randn(count, count, generator=generator, dtype=torch.float64)
    directions *= (1 + 2 * torch.rand(count, generator=generator, dtype=torch.float64)) / directions.norm(dim=0)
    phases = 2 * torch.pi * torch.rand(count, generator=generator, dtype=torch.float64)
    speeds = 2 * torch.rand(count, generator=generator, dtype=torch.float64) - 1

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.double()
        c_in = (sigma[:, None] ** 2 + 1).rsqrt()
        wave = c_in * (x @ directions) + phases + speeds * sigma[:, None].log()
        return right(x, sigma) + SIZE * sigma[:, None] * c_in * 2**0.5 * wave.sin()

    return rs.from_edm(denoise, 0.002, 80, dtype=torch.float64)


def frechet() -> Callable[[Tensor], float]:
    """Makes the distance of samples to the data: Fréchet's, in random cosines."""
    generator = torch.Generator().manual_seed(1)
    weights = 2 * torch.randn(*SHAPE, FEATURES, generator=generator, dtype=torch.float64)
    shifts = 2 * torch.pi * torch.rand(FEATURES, generator=generator, dtype=torch.float64)

    def features(x: Tensor) -> Tensor:
        return (x.double() @ weights + shifts).cos()

    reference = statistics_of(features(mixture().draw(200_000, generator=generator)))
    return lambda samples: frechet_distance(statistics_of(features(samples)), reference)


def best_usual(space: Space, bench: Bench) -> list[str]:
    """Lists the five best usual plans, as the first stage of `tune` finds them."""
    plans = space.usual()
    for seeds, count in ((FIRST[:250], max(10, len(plans) // 3)), (FIRST, 10), (SECOND, 5)):
        values = [each.value for each in bench.each("usual", plans, seeds)]
        plans = [plan for _, plan in sorted(zip(values, plans, strict=True))][:count]
    return plans


def raced(bench: Bench, plans: Sequence[str]) -> str:
    """Returns the best of these plans on fresh seeds."""
    return min(plans, key=lambda plan: bench.together("race", Key(plan, RACE)).value)


def found_by(
    name: str, start: int, trials: int, space: Space, bench: Bench, usual: Sequence[str]
) -> tuple[str, str, float]:
    """Runs a search.

    Returns:
        The plan that its ten best end with, that plan without those that it began with, and the seconds of a core.
    """
    begin = time.process_time()
    with TemporaryDirectory() as folder:
        study = open_study(Path(folder) / "trials.journal", name)
        begin_with(study, [each for each in map(space.suggestion, usual) if each])
        search(
            space,
            bench,
            study,
            (FIRST, SECOND),
            sampler=name,
            start=start,
            limits=Limits(),
            until=lambda count: count >= trials,
        )
        seconds = time.process_time() - begin
        given = (trial for trial in study.get_trials() if "fixed_params" in trial.system_attrs)
        first = {trial.user_attrs["plan"] for trial in given if "plan" in trial.user_attrs}  # of few trials not all ran
        best = best_plans(study, 10 + len(first))
    own = [plan for plan in best if plan not in first]
    return raced(bench, best[:10]), raced(bench, (own or best)[:10]), seconds


def compared(rows: Sequence[dict[str, Any]], which: str) -> Table:
    """Compares the plans of searches start by start: their distances as parts of the best usual plan's.

    Args:
        rows: lines of the file, of one NFE.
        which: "found", or "own" for the best that a search did not begin with.
    """
    table = Table("search", "median", "lowest to highest", "to TPE", "below TPE's", "lowest", "core s", box=None)
    parts: dict[str, dict[int, float]] = {}
    for row in rows:
        parts.setdefault(row["search"], {})[row["start"]] = row[which] / row["usual"]
    for name, own in parts.items():
        pairs = [own[start] - parts["tpe"][start] for start in own if name != "tpe" and start in parts["tpe"]]
        lowest = sum(own[start] == min(each[start] for each in parts.values() if start in each) for start in own)
        table.add_row(
            name,
            f"{median(own.values()):.3f}",
            f"{min(own.values()):.3f} to {max(own.values()):.3f}",
            f"{fmean(pairs):+.3f} +- {stdev(pairs) / len(pairs) ** 0.5:.3f}" if len(pairs) > 1 else "",
            f"{sum(each < 0 for each in pairs)} of {len(pairs)}, {pairs.count(0)} alike" if pairs else "",
            f"{lowest} of {len(own)}",
            f"{median(row['seconds'] for row in rows if row['search'] == name):.0f}",
        )
    return table


def measure(nfe: int, start: int, searches: Sequence[str], trials: int, out: Path) -> None:
    """Runs the searches of a start, and adds their lines to the file."""
    net = wrong_net(start)
    objective = OfSamples(net, SHAPE, frechet())

    @cache
    def judged(plan: str) -> float:
        return objective.measure(Key(plan, FRESH, blocks=4), RANKS)["objective"].value

    with TemporaryDirectory() as folder:
        grids = KeptGrids(Path(folder) / "levels.json", Teacher(net, begin_net(net, SHAPE), nfe))
        space = Space(net, nfe, grids, known=False)
        bench = Bench(objective, RANKS, Path(folder) / "measured.jsonl", nfe)
        usual = best_usual(space, bench)
        best = raced(bench, usual)
        for name in searches:
            plan, own, seconds = found_by(name, start, trials, space, bench, usual)
            line = {"nfe": nfe, "start": start, "search": name, "trials": trials, "seconds": round(seconds, 1)}
            line |= {"plan": plan, "own_plan": own, "usual_plan": best, "found": judged(plan)}
            line |= {"own": judged(own), "usual": judged(best)}
            append_line(out, (json.dumps(line) + "\n").encode())
            print(f"NFE {nfe}, start {start}, {name}: {line['found']:.4g} `{plan}`; usual {line['usual']:.4g} `{best}`")


def scatter(rows: Sequence[dict[str, Any]]) -> float | None:
    """Returns the scatter of the difference of two plans on the same 1,000 samples, as a part of their distance.

    The plans are TPE's and the best usual one; the median over the starts where these are two. None: there is none.
    """
    found = []
    for row in rows:
        if row["search"] == "tpe" and row["found"] != row["usual"]:
            objective = OfSamples(wrong_net(row["start"]), SHAPE, frechet())
            one, other = (
                objective.measure(Key(row[name], FRESH, blocks=40), RANKS)["objective"].values
                for name in ("plan", "usual_plan")
            )
            found.append(stdev(a - b for a, b in zip(one, other, strict=True)) / row["usual"])
    return median(found) if found else None


def read(out: Path, trials: int) -> list[dict[str, Any]]:
    """Returns the lines of searches of so many trials."""
    rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()] if out.exists() else []
    return [row for row in rows if row["trials"] == trials]


@click.command()
@click.option("--nfe", "nfes", default="10,20", show_default=True)
@click.option("--starts", default=8, show_default=True)
@click.option("--trials", default=150, show_default=True)
@click.option("--searches", default=";".join(SEARCHES), show_default=True, help=f"Also: {'; '.join(VARIANTS)}.")
@click.option("--out", default="search.jsonl", show_default=True, type=click.Path(path_type=Path, dir_okay=False))
def main(nfes: str, starts: int, trials: int, searches: str, out: Path) -> None:
    own_sampler = search_module._sampler
    search_module._sampler = lambda name, seed: VARIANTS[name](seed) if name in VARIANTS else own_sampler(name, seed)
    for start in range(starts):
        for nfe in map(int, nfes.split(",")):
            there = [row["search"] for row in read(out, trials) if (row["start"], row["nfe"]) == (start, nfe)]
            if missing := [name for name in searches.split(";") if name not in there]:
                measure(nfe, start, missing, trials, out)
    console = Console(width=120)
    for nfe in map(int, nfes.split(",")):
        rows = [row for row in read(out, trials) if row["nfe"] == nfe]
        found = scatter(rows)
        known = f"differences on 1,000 samples scatter by {found:.1%} of the distance" if found else "all ended alike"
        console.print(f"\nNFE {nfe}: {known}")
        for which, words in (("found", "what they end with"), ("own", "without the plans that they began with")):
            console.print(f"{trials} trials, {words}:", compared(rows, which))


if __name__ == "__main__":
    main()
