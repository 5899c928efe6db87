"""`rs.tune` from end to end: on an exact mixture, killed and resumed, on a pipeline of diffusers; and its controls."""

import json
import re
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from hashlib import sha256
from importlib.util import module_from_spec, spec_from_file_location
from math import inf
from pathlib import Path
from shutil import copytree
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import restart_sampling as rs
from in_thread import InThread
from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.sampling.net_plan import net_noise
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.presets import PRESETS
from restart_sampling.tuning import teacher
from restart_sampling.tuning.bench import Bench, Measured, read_measured
from restart_sampling.tuning.budget import main_steps
from restart_sampling.tuning.clock import least_evaluations
from restart_sampling.tuning.given_trial import GIVEN, GivenTrial
from restart_sampling.tuning.limits import Limits
from restart_sampling.tuning.objective import Key
from restart_sampling.tuning.of_samples import OfSamples
from restart_sampling.tuning.own_levels import with_levels
from restart_sampling.tuning.score import Score
from restart_sampling.tuning.search import (
    _goes_on,
    _report,
    begin_with,
    best_plans,
    beyond_limits,
    open_study,
    search,
)
from restart_sampling.tuning.settings import Settings
from restart_sampling.tuning.space import Space
from restart_sampling.tuning.stages import Stages
from restart_sampling.tuning.teacher import Teacher
from restart_sampling.tuning.tune import begin_net
from restart_sampling.tuning.usual import usual_plans
from restart_sampling.tuning.verdict import judge

ANY = rs.from_edm(lambda x, sigma: x, sigma_min=0.002, sigma_max=80)
LIMIT = {"minutes": inf, "images": 200, "race": 400, "confirm": 200}


ONE = {"shape": (2,), "trials": 1, "minutes": inf, "images": 20, "race": 80, "confirm": 20}


def mixture(std=0.05):
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.2]], dtype=torch.float64)
    return rs.GaussianMixture(means, std)


def spread(samples):
    """How far samples are from the mixture's nearest mean, compared with what is right: no noise of its own."""
    distances = (samples[:, None] - mixture().means).square().sum(-1).min(dim=1).values
    return abs(distances.mean().item() - 2 * 0.05**2) + abs(distances.std().item() - 2 * 0.05**2)


def load_module(path):
    spec = spec_from_file_location("judge", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def objective():
    data = mixture().draw(20_000, generator=torch.Generator().manual_seed(0))
    return rs.sliced_wasserstein(data, directions=32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a small run of NFE 5."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    rs.tune(mixture(), 5, out=folder, objective=spread, **ONE)
    return folder


def trials_of(folder, nfe):
    trials = open_study(Path(folder) / "trials.journal", f"NFE {nfe}").get_trials(deepcopy=False)
    begun = [trial for trial in trials if trial.state.name != "WAITING"]
    return [(trial.number, trial.user_attrs["plan"], trial.state.name, trial.value) for trial in begun]


def test_the_search_comes_near_the_best_of_an_exhaustive_grid(tmp_path):
    net, distance, nfe = mixture(), objective(), 6
    plan = rs.tune(
        net, nfe, objective=distance, shape=(2,), trials=60, out=tmp_path / "run", **{**LIMIT, "images": 500}
    )
    grid = [
        Plan(nfe, solver=solver, grid=rule, rho=rho, sigma_max=sigma_max, sigma_min=sigma_min)
        for solver in ("euler", "ab", "deis", "dpmpp_2m", "unipc")
        for rule, rho in (("exponential", 7.0), ("karras", 3.0), ("karras", 7.0))
        for sigma_max in (5.0, 20.0, 80.0)
        for sigma_min in (0.01, 0.03, 0.1)
    ]

    def value(each):
        return distance(rs.sample(net, each, range(5000, 9000), (2,)))

    # What the search found, not what the confirmation chose: that takes the simplest of those that are close.
    found = min(value(text) for _, text, state, _ in trials_of(tmp_path / "run", nfe) if state == "COMPLETE")
    values = sorted(map(value, grid))
    assert found <= 1.1 * values[0]
    assert sum(each <= 1.1 * values[0] for each in values) < len(values) / 8  # not everything is near it
    assert plan.made_for == mixture().identity != mixture(0.1).identity
    assert rs.sample(net, plan, range(4), (2,)).shape == (4, 2)


def test_a_killed_run_goes_on_with_the_trials_that_it_would_have_had(tmp_path):
    asked = {"objective": spread, "shape": (2,), **LIMIT, "trials": 14}
    whole = rs.tune(mixture(), 5, out=tmp_path / "whole", **asked)
    calls, limit = [], []
    own = OfSamples(mixture(), (2,), spread).about

    def dies(samples):
        calls.append(len(samples))
        if len(calls) == limit[-1]:
            raise KeyboardInterrupt
        return spread(samples)

    dies.__qualname__, dies.identity = own["objective"], own["objective_sha256"]
    lines = (tmp_path / "whole/measured.jsonl").read_text().splitlines()
    stages = [json.loads(line)["stage"] for line in lines]
    for later in (4, 9):
        limit.append(stages.index("search") + later)
        with pytest.raises(KeyboardInterrupt):
            rs.tune(mixture(), 5, out=tmp_path / "killed", **{**asked, "objective": dies})
        calls.clear()
        for file in ("measured.jsonl", "trials.journal"):  # a kill in the middle of a write
            with (tmp_path / "killed" / file).open("a") as half:
                half.write('{"op_code": 4, "pl')
    again = rs.tune(mixture(), 5, out=tmp_path / "killed", **asked)
    assert trials_of(tmp_path / "killed", 5) == trials_of(tmp_path / "whole", 5)
    assert (again, again.verdict) == (whole, whole.verdict)
    keys = [key for key, _ in read_measured(tmp_path / "killed/measured.jsonl")]
    assert len(set(keys)) == len(keys) == len(lines)  # nothing was measured twice
    rs.tune(mixture(), 5, out=tmp_path / "killed", **{**asked, "objective": dies})
    assert not calls  # a plan that is there is final


@pytest.mark.parametrize(("processes", "trials", "recall"), [(1, 3, False), (2, 3, True)])
def test_a_search_that_was_killed_at_any_moment_goes_on_to_the_same_trials(
    processes, trials, recall, tmp_path, monkeypatch
):
    """After each line of the journal; the values are given, so that nothing is drawn."""
    monkeypatch.setattr("restart_sampling.tuning.search.RANDOM_TRIALS", 2)
    space, journal = Space(mixture(), 5), tmp_path / "trials.journal"

    def measured(plan):
        value = zlib.crc32(plan.encode())
        metrics = {"recall": value % 5 / 10, "recall_error": 0.01} if recall else {}
        return Measured("", 5, {"": Score((float(value),), (), metrics)}, "", 1.0)

    known = {
        range(images): replace(measured(""), scores={"": Score((0.0,), (), {"recall": least, "recall_error": 0.01})})
        for images, least in ((1, 0.1), (2, 0.2))
    }
    limits = Limits(known)

    given = {**space.suggestion("5 solver=ab"), GIVEN: "5 solver=ab grid=68/20/5/1/0.1/0"}
    bench = SimpleNamespace(
        ranks=Ranks(0, processes, torch.device("cpu")),
        each=lambda stage, plans, seeds: [measured(plan) for plan in plans],
        together=lambda stage, key: measured(key.plan),
    )

    def searched(content):
        journal.write_bytes(content)
        study = open_study(journal, "NFE 5")
        begin_with(study, [space.suggestion("5 solver=euler"), given])
        search(space, bench, study, (range(1), range(2)), limits=limits, until=lambda count: count >= trials)
        return trials_of(tmp_path, 5)

    whole = searched(b"")
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(whole) == -(-trials // processes) * processes
    assert [text for _, text, *_ in whole[:2]] == ["5 solver=euler", given[GIVEN]]
    assert {state for *_, state, _ in whole} >= {"COMPLETE", "PRUNED"}
    assert bool(beyond_limits(open_study(journal, "NFE 5"))) == recall
    for kept in range(len(lines)):
        assert searched(b"".join(lines[:kept])) == whole, lines[kept - 1]


class Trials:
    """A study of which trials 0 to 3 have the values 4, 2, 3 and 1 on the first seeds, and trial 5 has 0."""

    def get_trials(self, deepcopy):
        values = {0: 4.0, 1: 2.0, 2: 3.0, 3: 1.0, 5: 0.0}
        return [
            SimpleNamespace(number=each, intermediate_values={1: values[each]} if each in values else {})
            for each in range(7)
        ]


@pytest.mark.parametrize(
    ("number", "value", "on"),
    [
        *((0, 9.0, True), (1, 9.0, False), (1, 4.0, True)),  # of none before it the best; of one that is better not
        *((3, 2.5, True), (3, 3.0, True), (3, 3.5, False)),  # a third of three
        *((4, 1.5, True), (4, 2.0, True), (4, 2.5, False)),  # of four one; an equal one is not better
        *((6, 1.0, True), (6, 1.5, False), (4, None, False), (0, None, False)),
    ],
)
def test_a_trial_goes_on_that_is_among_the_best_third_of_those_before_it(number, value, on):
    result = Measured("search", 6, None if value is None else {"": Score((value,))}, "", 1.0)
    assert _goes_on(Trials(), SimpleNamespace(number=number), result) is on


def test_a_value_on_the_first_seeds_is_reported_once_and_only_where_there_is_one():
    def reported(number, value):
        said = []
        result = Measured("search", 6, None if value is None else {"": Score((value,))}, "", 1.0)
        _report(Trials(), SimpleNamespace(number=number, report=lambda *each: said.append(each)), result)
        return said

    assert (reported(4, 2.5), reported(4, None), reported(3, 2.5)) == ([(2.5, 1)], [], [])


@pytest.mark.parametrize("processes", [1, 2])
def test_a_search_ends_where_nothing_that_is_suggested_is_a_plan(processes, tmp_path):
    def refuses(trial):
        raise InputError("no such plan")

    space = SimpleNamespace(suggest=refuses, text=str)
    bench = SimpleNamespace(ranks=Ranks(0, processes, torch.device("cpu")))
    study = open_study(tmp_path / "trials.journal", "NFE 5")
    search(space, bench, study, (range(1), range(2)), limits=Limits(), until=lambda count: count >= 7)
    assert [trial.state.name for trial in study.get_trials()] == ["FAIL"] * 7


def test_search_race_and_confirmation_share_no_seed():
    parts = Settings().seeds
    assert sum(map(len, parts)) == len(set().union(*parts)) == parts[-1].stop


def test_where_the_denoiser_is_exact_no_restart_is_chosen():
    plan = rs.tune(mixture(0.3), 20, objective=objective_of(0.3), shape=(2,), **LIMIT, trials=10)
    assert not plan.intervals or not plan.evidence["better"]


def objective_of(std):
    data = mixture(std).draw(20_000, generator=torch.Generator().manual_seed(0))
    return rs.sliced_wasserstein(data, directions=32)


class AllAlike:
    """An objective for which all plans are the same, each with draws of its own."""

    about = {"objective": "none"}  # noqa: RUF012

    def __init__(self, seed):
        self.seed = seed

    features = {}  # noqa: RUF012

    def nfe(self, plan):
        return 6

    def measure(self, key, ranks, keep=None):
        start = [self.seed, key.seeds.start, *key.plan.encode()]
        values = np.random.default_rng(start).normal(1, 1, (key.blocks, max(key.groups, 1)))
        if not key.groups:
            return {"none": Score(tuple(values.mean(axis=1)))}
        without = [[np.delete(run, left).mean() for left in range(key.groups)] for run in values]
        return {"none": Score(tuple(map(np.mean, values)), tuple(map(tuple, without)))}


def verdict_of(objective, folder, trials, tell=lambda text: None):
    folder.mkdir(exist_ok=True)
    bench = Bench(objective, Ranks(0, 1, torch.device("cpu")), folder / "measured.jsonl")
    sizes = {"images": 20, "race": 80, "confirm": 20}
    settings = Settings(minutes=inf, trials=trials, sampler="random", start=objective.seed, **sizes)
    study = open_study(folder / "trials.journal", "A/A")
    return Stages(Space(ANY, 6), bench, study, settings, folder, tell).run()


def test_a_search_ends_on_both_of_two_processes_of_which_one_has_the_study(tmp_path):
    study, barrier, box = open_study(tmp_path / "trials.journal", "NFE 6"), Barrier(2), {}

    def searched(rank):
        ranks = InThread(rank, 2, torch.device("cpu"), barrier=barrier, box=box)
        bench = Bench(AllAlike(0), ranks, tmp_path / "measured.jsonl")
        parts, own = (range(20), range(20, 60)), study if ranks.first else None
        search(Space(ANY, 6), bench, own, parts, limits=Limits(), until=lambda count: count >= 5)
        return bench.found

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(searched, range(2))
    assert first.keys() == second.keys()
    plans = {plan: state for _, plan, state, _ in trials_of(tmp_path, 6)}
    assert len(plans) == 6  # a round of two is finished
    assert {key.plan for key in first} == {*plans}
    assert {key.plan for key in first if key.seeds.start} == {plan for plan in plans if plans[plan] == "COMPLETE"}


def winners(runs, tmp_path, trials):
    return sum(verdict_of(AllAlike(seed), tmp_path / f"{seed}", trials).better for seed in runs)


def test_the_usual_plans_are_told_while_they_are_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("restart_sampling.tuning.news.SECONDS_BETWEEN_WORDS", 0.0)
    monkeypatch.setattr("restart_sampling.tuning.stages.FEW", 10)
    said = []
    verdict_of(AllAlike(0), tmp_path / "run", 1, said.append)
    count = len(usual_plans(ANY, 6))
    told = [each.removeprefix("NFE 6, usual plans: ") for each in said if each.startswith("NFE 6, usual plans: ")]
    few = [f"{done} of {count} measured on 10 images" for done in range(1, count + 1)]
    more = [f"{done} of {count // 3} measured on 20 images" for done in range(1, count // 3 + 1)]
    expected = [f"{count} of them", *few, *more]
    assert told[: len(expected)] == expected
    assert told[len(expected)].startswith("best so far ")
    monkeypatch.undo()  # now and then, not of each
    verdict_of(AllAlike(0), tmp_path / "quiet", 1, said.clear() or said.append)
    assert not any("measured on" in each for each in said)


class Low(AllAlike):
    """All alike, but two."""

    def measure(self, key, ranks, keep=None):
        ((name, score),) = super().measure(key, ranks, keep).items()
        low = {"6 solver=euler": -8.0, "2": -9.0}.get(key.plan, score.value)
        return {name: replace(score, values=(low,) * len(score.values))}


def test_the_best_so_far_is_of_the_nfe_that_is_searched(tmp_path, monkeypatch):
    other, said = Bench(Low(0), Ranks(0, 1, torch.device("cpu")), tmp_path / "measured.jsonl", search=7), []
    for plan in ("6 solver=euler", "2"):  # of which one is a usual plan here too
        other.together("search", Key(plan, Settings(images=20).seeds[1]))
        other.together("rehearsal", Key(plan, Settings(images=20).seeds[1], groups=10, confirm=True))
    monkeypatch.setattr("restart_sampling.tuning.news.SECONDS_BETWEEN_WORDS", 0.0)
    verdict_of(Low(0), tmp_path, 2, said.append)
    assert {each for each in said if each.startswith("NFE 6, search: best")} == {
        "NFE 6, search: best so far -8 `6 solver=euler`"
    }


def test_plans_that_are_all_alike_have_no_winner(tmp_path):
    assert winners(range(5), tmp_path, 8) <= 1


@pytest.mark.slow
def test_plans_that_are_all_alike_have_a_winner_in_at_most_one_run_of_twenty(tmp_path):
    assert winners(range(200), tmp_path, 12) <= 10


def test_of_plans_that_do_the_same_one_races(tmp_path, monkeypatch):
    monkeypatch.setattr(Space, "way", lambda space, text: Plan.parse(text).solver)  # as of a net of few timesteps
    verdict_of(AllAlike(0), tmp_path / "run", 30)
    results = list(read_measured(tmp_path / "run/measured.jsonl"))
    usual = {key.plan for key, each in results if each.stage == "usual"}
    raced = {key.plan for key, each in results if each.stage == "race"} - usual
    solvers = [Plan.parse(plan).solver for plan in raced]
    assert len(solvers) == len({*solvers}) > 2


class Forgetful(AllAlike):
    """All alike, but that some have a lower recall."""

    def __init__(self, falls):
        super().__init__(0)
        self.falls = falls

    def measure(self, key, ranks, keep=None):
        ((name, score),) = super().measure(key, ranks, keep).items()
        recall = {"recall": 0.5 if self.falls(key.plan) else 0.6, "recall_error": 0.01}
        return {name: replace(score, metrics=recall if key.confirm else {})}


def test_plans_are_confirmed_whose_recall_holds_on_the_seeds_of_the_race(tmp_path):
    usual = usual_plans(ANY, 6)
    some = Forgetful(lambda plan: plan not in usual and zlib.crc32(plan.encode()) % 2)
    said = []
    verdict = verdict_of(some, tmp_path / "some", 12, said.append)
    assert (verdict.finalists, verdict.fallen) == (2, {})
    compared = [key for key, each in read_measured(tmp_path / "some/measured.jsonl") if each.stage == "recall"]
    assert compared[0].plan in usual
    left_out = {key.plan for key in compared if some.falls(key.plan)}
    assert left_out
    for plan in left_out:
        sentence = f"`{plan}` is left out, worse beyond the error: recall 0.5 against 0.6, -0.100 +- 0.014"
        assert f"NFE 6, race: {sentence}" in said
    seeds = Settings(images=20, race=80, confirm=20).seeds[2]
    assert {key.seeds for key in compared} == {seeds}
    every = verdict_of(Forgetful(lambda plan: plan not in usual), tmp_path / "every", 12)
    assert (every.finalists, len(every.fallen), every.plan in usual) == (1, 1, True)  # and the verdict says why


class Seen(Forgetful):
    """Recall is there in the search too."""

    def measure(self, key, ranks, keep=None):
        return super().measure(key._replace(confirm=key.confirm or not key.groups), ranks, keep)


def test_what_loses_recall_in_the_search_does_not_race_and_is_not_told_as_the_best(tmp_path):
    usual, said = usual_plans(ANY, 6), []
    some = Seen(lambda plan: plan not in usual and zlib.crc32(plan.encode()) % 2)
    verdict_of(some, tmp_path / "some", 12, said.append)
    keys = {stage: [] for stage in ("search", "race")}
    for key, each in read_measured(tmp_path / "some/measured.jsonl"):
        keys.get(each.stage, []).append(key)
    left_out = {key.plan for key in keys["search"] if some.falls(key.plan)}
    assert left_out
    assert f"NFE 6, search: {len(left_out)} trials left out, worse by recall" in "\n".join(said)
    assert left_out.isdisjoint(key.plan for key in keys["race"])
    assert {key.plan for key in keys["race"]} - {*usual}
    assert not any(f"`{plan}`" in each for plan in left_out for each in said)
    assert {key.seeds for key in keys["search"] if key.plan in left_out} == {range(20)}  # these go no further


class Trading(AllAlike):
    """Shorter grids have a lower distance; those of 3 steps pay with recall, half on the second seeds alone."""

    @staticmethod
    def falls(plan, seeds):
        return Plan.parse(plan).steps == 3 and (seeds.start > 0 or zlib.crc32(plan.encode()) % 2 == 0)

    def measure(self, key, ranks, keep=None):
        steps, falls = float(Plan.parse(key.plan).steps), self.falls(key.plan, key.seeds)
        recall = {"recall": 0.4 if falls else 0.6, "recall_error": 0.02}
        without = ((steps,) * key.groups,) * key.blocks if key.groups else ()
        metrics = recall if self.seed and (key.confirm or not key.groups) else {}
        return {"none": Score((steps,) * key.blocks, without, metrics)}


@pytest.mark.parametrize("sampler", ["tpe", "cma-es", "random"])
def test_a_search_takes_no_plan_that_pays_with_recall(sampler, tmp_path, monkeypatch):
    monkeypatch.setattr("restart_sampling.tuning.search.RANDOM_TRIALS", 10)
    best = {}
    for ruled in (0, 1):
        (folder := tmp_path / f"{ruled}").mkdir()
        study = open_study(folder / "trials.journal", "NFE 6")
        bench = Bench(Trading(ruled), Ranks(0, 1, torch.device("cpu")), folder / "measured.jsonl")
        settings = Settings(minutes=inf, trials=40, sampler=sampler, images=20, race=80, confirm=20)
        limits = Limits.of(bench, "6 solver=euler", *settings.seeds[:2])
        assert limits.known == {key.seeds: each for key, each in bench.found.items()}
        assert [*limits.known] == [*settings.seeds[:2]]
        begin_with(study, [Space(ANY, 6).suggestion("6 solver=euler")])
        search(
            Space(ANY, 6),
            bench,
            study,
            settings.seeds[:2],
            sampler=sampler,
            limits=limits,
            until=lambda count: count >= 40,
        )
        assert trials_of(folder, 6)[0][1:3] == ("6 solver=euler", "COMPLETE")  # the best usual plan is never refused
        best[ruled] = {Plan.parse(plan).steps for plan in best_plans(study, 100)}
        trials = [trial for trial in study.get_trials() if trial.state.is_finished()]
        plans = {trial.number: trial.user_attrs["plan"] for trial in trials}
        beyond = {trial.number for trial in trials if any(value > 0 for value in trial.constraints.values())}
        assert beyond_limits(study) == len(beyond)
        assert beyond <= {number for number in plans if ruled and Plan.parse(plans[number]).steps == 3}
        unranked = {trial.number for trial in trials if not trial.intermediate_values}
        assert unranked == {number for number in plans if ruled and Trading.falls(plans[number], range(20))}
        assert bool(unranked) == ruled  # the best third is one of those that could be taken
    assert min(best[0]) <= 3 < min(best[1])
    assert len(best[1]) > 1


def test_a_pipeline_of_diffusers_is_tuned_from_end_to_end(place, run):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    settings = {"block_out_channels": [8], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    unet = UNet2DModel(sample_size=8, layers_per_block=1, norm_num_groups=4, mid_block_type=None, **settings)
    pipe = DDPMPipeline(unet.eval(), DDPMScheduler())
    net = rs.from_eps(pipe.unet, pipe.scheduler.alphas_cumprod, clip=True, identity="a" * 64)
    plan = rs.tune(
        net,
        4,
        reference="ref.npz",
        detector="tiny.pt",
        trust_detector=True,
        shape=(3, 8, 8),
        out="run",
        minutes=inf,
        trials=3,
        images=20,
        race=80,
        confirm=20,
        rises=False,
    )
    assert plan.path(net.sigma_min, net.sigma_max, net.round_level).nfe(*plan.solvers) in (3, 4)
    written = json.loads(Path("run/plan-4.json").read_text())
    assert written["levels"] == [net.sigma_min, net.sigma_max]
    assert (written["plan"], written["model_sha256"], written["nfe"]) == (str(plan), net.identity, 4)
    assert rs.sample(net, "run/plan-4.json", [0], (3, 8, 8)).isfinite().all()
    other = rs.from_eps(pipe.unet, pipe.scheduler.alphas_cumprod, identity="b" * 64)
    for given in (plan, "run/plan-4.json"):
        with pytest.raises(InputError, match="was found for another model"):
            rs.sample(other, given, [0], (3, 8, 8))
    assert "precision" in str(plan.evidence["scores"])
    measured = [(each.stage, each.score.metrics.keys()) for _, each in read_measured(Path("run/measured.jsonl"))]
    assert all(names == {"recall", "recall_error"} for stage, names in measured if stage in ("usual", "search"))
    assert not any(names for stage, names in measured if stage == "race")
    assert len(list(Path("run/samples").glob("*.png"))) >= 1


@pytest.mark.parametrize("batch", [7, 10, 35, 1000])
def test_an_objective_is_called_with_the_samples_of_each_group(batch):
    seen = []
    own = OfSamples(mixture(), (2,), lambda samples: float(seen.append(samples) or len(seen)), batch)
    own.measure(Key("4 solver=euler", range(100, 180), blocks=2, groups=4), Ranks(0, 1, torch.device("cpu")))
    for part, samples in enumerate(seen):
        first = 100 + 10 * part
        torch.testing.assert_close(samples, rs.sample(mixture(), "4 solver=euler", range(first, first + 10), (2,)))
    assert len(seen) == 8


def test_an_objective_that_returns_nan():
    with pytest.raises(InputError, match=r"the objective returned nan for 200 finite samples of plan '.*'; it has to"):
        rs.tune(mixture(), 5, objective=lambda samples: float("nan"), shape=(2,), trials=3, **LIMIT)
    for answer in (None, torch.zeros(2), torch.tensor(1j), 10**400, "0.5", True, 1e200, -1e200, 1e-200):
        with pytest.raises(InputError, match="the objective returned "):
            rs.tune(mixture(), 5, objective=lambda samples, answer=answer: answer, shape=(2,), trials=3, **LIMIT)


def test_an_objective_that_refuses_samples_is_not_a_plan_that_fails():
    def refuses(samples):
        raise InputError("too few samples")

    with pytest.raises(InputError, match=r"^the objective failed: too few samples$"):
        rs.tune(mixture(), 5, objective=refuses, shape=(2,), trials=3, **LIMIT)


def test_an_objective_of_a_net_with_classes():
    """Each seed has the class that `generate` draws for it, also where the net is guided, and in stage 0."""

    def network(x, sigma, class_labels):  # its data are the number of the class
        return class_labels.reshape(-1, *[1] * (x.ndim - 1)).to(x).expand_as(x)

    net = rs.from_edm(network, 0.002, 80, label_dim=3, identity="classes", dtype=torch.float64)
    [batch] = rs.generate(net, "4", range(200), shape=(3, 1, 1), batch_size=200)
    guided, seen, told = rs.guided(net, 1.0, unconditional={"class_labels": torch.tensor([3])}), [], []
    limits = {**LIMIT, "trials": 2, "minutes": 9, "tell": told.append}
    rs.tune(guided, 4, objective=lambda samples: float(seen.append(samples) or 1), shape=(2,), **limits)
    (length,) = filter(None, (re.fullmatch(r"NFE 4, search: about (\d+) s, at most 2 trials", each) for each in told))
    assert int(length[1]) < 60  # what two trials take, and not the 9 minutes
    torch.testing.assert_close(seen[0][:, 0].round(), batch.labels[: len(seen[0])].double())
    begun, noise, shape = begin_net(net, (2,))(range(4))
    assert begun(noise.start(shape, 1.0), torch.ones(4))[:, 0].tolist() == batch.labels[:4].tolist()


def test_no_time_left_for_a_stage():
    with pytest.raises(
        InputError, match=r"^no time is left for a search in 0.001 minutes for NFE 5: at .* minutes? more"
    ):
        rs.tune(mixture(), 5, objective=spread, shape=(2,), **{**LIMIT, "minutes": 0.001})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nfe": 3}, "NFE 3 is too little"),
        ({"minutes": 0}, "minutes is 0"),
        ({"trials": None}, "without end"),
        ({"sampler": "evolution"}, "there is no search 'evolution'; give one of tpe, cma-es, random"),
        ({"images": 15}, "images is 15; give a multiple of 10"),
        ({"shape": None}, "needs the shape"),
        ({"objective": None}, "either a reference"),
        ({"objective": 5}, "the objective is 5; give a function"),
        ({"solvers": "heun"}, r"solvers = 'heun'; give a list of names"),
        ({"solvers": 5}, "solvers = 5; give a list of names"),
        ({"solvers": [rs.Heun()]}, r"solvers = \[Heun\(\)\]; give a list of names"),
        ({"rises": "no"}, "rises = 'no'; give True or False"),
        ({"restarts": "no"}, "restarts = 'no'; give True or False"),
        ({"nfe": 8.0}, "nfe = 8.0; give a whole number"),
        ({"nfe": "8"}, "nfe = '8'; give a whole number"),
        ({"nfe": []}, "nfe is empty"),
        ({"nfe": [8, 5000]}, "NFE 5000 is more than is searched; give at most 1,000"),
        ({"minutes": "3"}, "minutes = '3'; give a number"),
        ({"images": 100.0}, "images = 100.0; give a whole number"),
        ({"trials": 2.5}, "trials = 2.5; give a whole number"),
        ({"images": 10**20}, "images is 100000000000000000000; give a multiple of 10, at least 20 and at most 10,000"),
        ({"race": 10**20}, "at most 10,000,000"),
        ({"start": -1}, "start is -1; give a number from 0"),
        ({"shape": 2}, "the shape of a sample is 2"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"confirm_with": [("inception", "ref.npz")]}, "no detectors; leave them out"),
        ({"tune_guidance": True}, "tune_guidance is for images that a reference judges"),
    ],
)
def test_bad_input_from_python(given, said):
    asked = {"nfe": 5, "objective": spread, "shape": (2,), "trials": 3, **LIMIT, **given}
    with pytest.raises(InputError, match=said):
        rs.tune(mixture(), **asked)


def test_truth_values_of_other_types_are_pythons_own():
    settings = Settings(rises=np.False_, restarts=torch.tensor(False), minutes=np.float32(2))
    assert json.dumps(settings.about) == json.dumps(Settings(rises=False, restarts=False).about)
    for wrong in (np.array([True, False]), np.int64(1)):
        with pytest.raises(InputError, match="give True or False"):
            Settings(rises=wrong)


def test_another_run_in_the_same_folder(tmp_path):
    asked = {"objective": spread, "shape": (2,), **LIMIT, "trials": 1}
    rs.tune(mixture(), 5, out=tmp_path / "run", **asked)
    with pytest.raises(InputError, match=r'holds another run, with settings .*"race": 400'):
        rs.tune(mixture(), 6, out=tmp_path / "run", **{**asked, "race": 800})
    with pytest.raises(InputError, match='"known": false'):
        rs.tune(mixture(), 6, out=tmp_path / "run", **{**asked, "known": False})
    run = json.loads((tmp_path / "run/run.json").read_text())
    (tmp_path / "old").mkdir()
    old = {**run, "settings": {**run["settings"], "sampler": "evolution"}}  # a search that was removed
    (tmp_path / "old/run.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r'holds another run, with settings .*"sampler": "evolution"'):
        rs.tune(mixture(), 6, out=tmp_path / "old", **asked)
    data = mixture().draw(100, generator=torch.Generator().manual_seed(0))
    others = {"model_sha256": (mixture(0.3), spread), "objective_sha256": (mixture(), rs.sliced_wasserstein(data))}
    rs.tune(mixture(), 5, out=tmp_path / "data", **{**asked, "objective": rs.sliced_wasserstein(data + 1)})
    for (name, (net, function)), folder in zip(others.items(), ("run", "data"), strict=True):
        with pytest.raises(InputError, match=f"holds another run, with {name}"):
            rs.tune(net, 5, out=tmp_path / folder, **{**asked, "objective": function})
    for number in "12":
        Path(tmp_path / f"{number}.py").write_text(f"def distance(samples):\n    return {number}.0\n")
    one, two = (load_module(tmp_path / f"{number}.py").distance for number in "12")
    rs.tune(mixture(), 5, out=tmp_path / "one", **{**asked, "objective": one})
    rs.tune(mixture(), 5, out=tmp_path / "one", **{**asked, "objective": load_module(tmp_path / "1.py").distance})
    with pytest.raises(InputError, match=r'holds another run, with objective_sha256 "\w+", not "'):
        rs.tune(mixture(), 5, out=tmp_path / "one", **{**asked, "objective": two})
    of_one = json.loads((tmp_path / "one/run.json").read_text())
    (tmp_path / "one/run.json").write_text(json.dumps({**of_one, "objective_sha256": None}))  # of an earlier version
    rs.tune(mixture(), 5, out=tmp_path / "one", **{**asked, "objective": one})
    unknown = rs.from_edm(lambda x, sigma: x, 0.002, 80)
    inner = lambda samples: 0.0  # noqa: E731
    for made in (inner, partial(spread)):
        with pytest.raises(InputError, match=r"objective that can be told apart from others, and .* has no name"):
            rs.tune(mixture(), 5, out=tmp_path / "made", **{**asked, "objective": made})
    inner.identity = "zero"
    rs.tune(mixture(), 5, out=tmp_path / "made", **{**asked, "objective": inner})
    with pytest.raises(InputError, match="this one has no identity"):
        rs.tune(unknown, 5, out=tmp_path / "unknown", **asked)
    assert rs.tune(unknown, 5, **{**asked, "objective": lambda samples: 0.0}).made_for is None
    later = {"restarts", "known", "tune_guidance"}  # which earlier runs do not name
    assert not later & run["settings"].keys()
    assert later <= Settings(restarts=False, known=False, tune_guidance=True).about.keys()
    (tmp_path / "else").mkdir()
    (tmp_path / "else/file").touch()
    with pytest.raises(InputError, match="holds something else"):
        rs.tune(mixture(), 6, out=tmp_path / "else", **asked)


def test_an_objective_is_known_by_its_code_alone(finished, tmp_path):
    def of(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return load_module(tmp_path / f"{name}.py").distance

    def known(function):
        return OfSamples(mixture(), (2,), function).about["objective_sha256"]

    plain = "def distance(samples):\n    return len(samples) / 9\n"
    edited = 'def distance( samples ) :  # 5\n    """Of the length."""\n\n    return (len(samples)\n    / 9)\n'
    method = f"class Of:\n    @staticmethod\n    {plain.replace('    ', '        ')}distance = Of.distance\n"
    first, *same, other = (
        of(*each) for each in [("a", plain), ("b", edited), ("c", method), ("d", plain.replace("9", "8"))]
    )
    assert known(first) == known(same[0]) != known(other)
    assert known(same[1]) == known(of("e", method.replace("9", "9  # it is")))

    folder = Path(copytree(finished, tmp_path / "run"))
    run = json.loads((folder / "run.json").read_text())
    for known_by in (known(first), sha256(plain.encode()).hexdigest()):  # the second of earlier versions
        (folder / "run.json").write_text(json.dumps({**run, "objective": "distance", "objective_sha256": known_by}))
        with pytest.raises(InputError, match="holds another run, with objective_sha256"):
            rs.tune(mixture(), 5, out=folder, objective=other, **ONE)
        rs.tune(mixture(), 5, out=folder, objective=first, **ONE)
        assert json.loads((folder / "run.json").read_text())["objective_sha256"] == known(first)


@pytest.mark.parametrize(
    ("was", "said"),
    [
        ({"detectors": {"tiny.pt": {}}}, 'detectors {"tiny.pt": {}}, not null'),
        ({"guidance_interval": [0.2, 1.0]}, r"guidance_interval \[0.2, 1.0\], not null"),
        ({"objective": None}, 'objective null, not "spread"'),
        ({"shape": None}, r"shape null, not \[2\]"),
    ],
)
def test_what_only_one_of_two_starts_has_makes_them_two_runs(was, said, finished, tmp_path):
    folder = Path(copytree(finished, tmp_path / "run"))
    content = {**json.loads((folder / "run.json").read_text()), **was}
    (folder / "run.json").write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    text = (folder / "run.json").read_text()
    asked = {"out": folder, "objective": spread, **ONE}
    if was.keys() & {"objective", "shape"}:  # of an earlier version, which said less
        content.pop("objective_sha256")
        (folder / "run.json").write_text(json.dumps({key: content[key] for key in content if content[key] is not None}))
        assert rs.tune(mixture(), 5, **asked)
        (folder / "run.json").write_text(json.dumps({**json.loads(text), "objective_sha256": None}))
    with pytest.raises(InputError, match=f"holds another run, with {said}"):
        rs.tune(mixture(), 5, **asked)


def test_levels_by_dynamic_programming_stay_closer_to_the_fine_ode():
    means = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    net = rs.GaussianMixture(means, 0.1)
    own, judge = (
        Teacher(net, lambda seeds: (net, net_noise(net, seeds), (8,)), 5, seeds)
        for seeds in (range(64), range(99, 163))
    )
    for solver in ("euler", "dpmpp_2m", "midpoint"):
        grids = own.grids(solver)
        assert grids.keys() == set(range(2, 6))
        assert all(levels[0] == 80 and levels[-1] == 0 and len(levels) == n + 1 for n, levels in grids.items())
        usual = min(judge.distance(Plan(5, solver=solver, grid=rule)) for rule in ("karras", "exponential"))
        assert judge.distance(with_levels(Plan(5, solver=solver), grids[5])) < 0.7 * usual


def test_stage_0_takes_as_many_seeds_as_its_time_allows(monkeypatch):
    clock = iter(range(0, 8000, 8))  # a second for each of 8 seeds, at each call
    monkeypatch.setattr(teacher, "time", SimpleNamespace(perf_counter=lambda: next(clock)))  # of this module alone
    begin = lambda seeds: (mixture(), net_noise(mixture(), seeds), (2,))  # noqa: E731
    calls = 2 * len(Teacher(mixture(), begin, 5).levels[1:])
    for seconds, seeds in ((20.5 * calls, 20), (1, 8), (1e6, 256), (inf, 256)):
        assert len(Teacher(mixture(), begin, 5, seconds=seconds, more=calls // 2).seeds) == seeds
    fast = iter([0.0, 0.0, 1e-9])
    monkeypatch.setattr(teacher, "time", SimpleNamespace(perf_counter=lambda: next(fast)))
    assert len(Teacher(mixture(), begin, 5, seconds=1e305).seeds) == 256


def test_sliced_wasserstein_of_shifted_data_is_the_shift():
    data = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    distance = rs.sliced_wasserstein(data, directions=2000)
    assert distance(data) == 0
    shift = torch.tensor([0.6, 0.0, -0.8])
    assert distance(data + shift) == pytest.approx(1 / 3**0.5, rel=0.03)  # of a unit shift, seen from all directions
    assert distance(data[:250]) < 0.1
    with pytest.raises(InputError, match=r"samples are \[2\], and the data \[3\]"):
        distance(data[:, :2])


class Paced(AllAlike):
    """An objective whose samples, plans and metrics take so much time on a clock of its own, and no other."""

    def __init__(self, monkeypatch, speed, metrics=0.0, begins=0.0, each=0.0):
        super().__init__(0)
        self.now, self.speed, self.metrics, self.begins, self.seen = 1000.0, speed, metrics, begins, []
        self.each = each
        for name in ("monotonic", "perf_counter"):
            monkeypatch.setattr(time, name, lambda: self.now)

    def measure(self, key, ranks, keep=None):
        self.now += self.begins + self.each + len(key.seeds) * 6 / self.speed + self.metrics * key.confirm
        self.begins = 0.0
        self.seen.append(len(key.seeds))
        scores = super().measure(key, ranks, keep)
        recall = {"recall": 0.6, "recall_error": 0.01} if self.metrics and key.confirm else {}
        return {name: replace(score, metrics=recall) for name, score in scores.items()}


@pytest.mark.parametrize(
    ("minutes", "metrics", "sizes"),
    [
        (1e307, 0.0, (10_000, 10_000)),
        (60, 0.0, (10_000, 10_000)),
        (4, 0.0, (8000, 8000)),
        (4, 4.0, (4000, 4000)),
        (1.3, 0.0, (1000, 1000)),
    ],
)
def test_race_and_confirmation_are_cut_to_the_minutes(minutes, metrics, sizes, tmp_path, monkeypatch):
    objective = Paced(monkeypatch, 12_000, metrics, begins=28)  # a compilation
    start = objective.now
    bench = Bench(objective, Ranks(0, 1, torch.device("cpu")), tmp_path / "measured.jsonl")
    study = open_study(tmp_path / "trials.journal", "NFE 6")
    settings = Settings(minutes=minutes, trials=40, sampler="random")
    stages = Stages(Space(ANY, 6), bench, study, settings, tmp_path, lambda text: None)
    stages.run()
    assert stages.sizes == sizes
    assert objective.seen[-1] == 3 * sizes[1]
    assert objective.now - start < 60 * minutes + 5
    assert stages.cost()["race_images"] == sizes[0]
    trials = stages.cost()["trials"]
    assert 10 <= trials <= 40
    again = Stages(Space(ANY, 6), bench, study, settings, tmp_path, lambda text: None)
    measured = len(objective.seen)
    again.run()
    assert (len(objective.seen), again.sizes) == (measured, sizes)


def test_what_a_plan_takes_beside_few_images_is_not_taken_for_the_time_of_many(tmp_path, monkeypatch):
    """3 minutes suffice, which they would not if all images took as long as 20 do with all that is beside them."""
    objective, told = Paced(monkeypatch, 12_000, each=0.5), []
    start = objective.now
    bench = Bench(objective, Ranks(0, 1, torch.device("cpu")), tmp_path / "measured.jsonl")
    study = open_study(tmp_path / "trials.journal", "NFE 6")
    settings = Settings(minutes=3, images=20, sampler="random")
    stages = Stages(Space(ANY, 6), bench, study, settings, tmp_path, told.append)
    stages.run()
    assert objective.now - start < 60 * 3 + 5
    assert bench.speed(20) == pytest.approx(120 / 0.51)
    assert bench.speed(5000) == pytest.approx(1500 / 0.625)


def test_the_time_of_an_nfe_is_not_that_of_the_next_one(tmp_path):
    asked = {**ONE, "objective": spread, "out": tmp_path / "run"}
    alone = rs.tune(mixture(), 6, **{**asked, "out": None})
    found = rs.tune(mixture(), [5, 6], **asked)
    results = dict(read_measured(tmp_path / "run/measured.jsonl"))
    own = {nfe: sum(each.seconds for each in results.values() if each.is_of(nfe)) for nfe in (5, 6)}
    assert sum(own.values()) == sum(each.seconds for each in results.values())
    for nfe, plan in found.items():
        assert plan.evidence["cost"]["seconds"] == round(own[nfe], 1)
    assert found[6].evidence["cost"]["evaluations"] <= alone.evidence["cost"]["evaluations"]
    assert Measured("search", 5, None, "", 1.0).is_of(6)  # of an earlier version, where this is all that is known
    assert not Measured("map", 5, None, "", 1.0).is_of(6)


def test_time_is_asked_for_no_more_images_than_there_are(tmp_path, monkeypatch):
    objective = Paced(monkeypatch, 12_000)
    bench = Bench(objective, Ranks(0, 1, torch.device("cpu")), tmp_path / "measured.jsonl")
    study = open_study(tmp_path / "trials.journal", "NFE 6")
    settings = Settings(minutes=inf, trials=1, images=20, race=80, confirm=20, sampler="random")
    space = Space(ANY, 6)
    Stages(space, bench, study, settings, tmp_path, lambda text: None).run()
    assert least_evaluations(settings, 6, len(space.usual())) <= 6 * 2 * sum(objective.seen)


def test_batches_leave_little_over():
    assert Settings().even(500) == 500
    batch = Settings(images=600, race=4000).even(500)
    assert 250 < batch < 500
    assert sum(-(-count // batch) * batch for count in (600, 1200, 1000)) < 1.1 * 2800  # and 3500 by 500
    batch = Settings(images=300).even(1000)
    assert -(-900 // batch) * batch < 1.2 * 900  # a plan of the polish, which has the seeds of both: 1250 by 625


def test_a_search_begins_with_the_best_intervals_of_the_map(tmp_path):
    cells = [
        {"t_min": 0.3, "t_max": 1.1, "gain": 0.05, "error": 0.01},
        {"t_min": 1.1, "t_max": 1.9, "gain": 0.06, "error": 0.01},
        {"t_min": 8.4, "t_max": 13.0, "gain": 0.07, "error": 0.04},  # not told apart from 0
    ]
    asked = {"objective": spread, "shape": (2,), **LIMIT, "known": False, "out": tmp_path / "run"}
    rs.tune(mixture(), 8, trials=1, **asked)
    (tmp_path / "run/map.json").write_text(json.dumps({"base": "18", "cells": cells}))
    (tmp_path / "run/plan-8.json").unlink()
    rs.tune(mixture(), 8, trials=7, **asked)
    found = trials_of(tmp_path / "run", 8)
    assert [number for number, *_ in found] == [0, 1, 2, 3, 4, 5, 6]
    single = [Plan.parse(text).intervals for _, text, *_ in found[1:]]
    widths = [each[0].t_max / each[0].t_min for each in single if len(each) == 1 and each[0].repeats == 1]
    assert all(any(width == pytest.approx(wanted, rel=0.01) for width in widths) for wanted in (1.9 / 1.1, 1.1 / 0.3))
    (tmp_path / "run/map.json").write_text(json.dumps({"base": "18", "cells": [{**cells[0], "gain": True}]}))
    with pytest.raises(InputError, match="true or false, where numbers have to be"):
        rs.tune(mixture(), 8, trials=7, **asked)


def test_a_search_begins_with_the_best_usual_plans(tmp_path):
    rs.tune(mixture(), 8, objective=spread, shape=(2,), **LIMIT, trials=5, known=False, out=tmp_path)
    raced = {key.plan for key, each in read_measured(tmp_path / "measured.jsonl") if each.stage == "race"}
    space = Space(mixture(), 8)
    known = [space.suggestion(text) for text in usual_plans(mixture(), 8) if text in raced]
    begun = {text for _, text, *_ in trials_of(tmp_path, 8)}
    assert begun >= {str(space.suggest(GivenTrial(each))) for each in known if each}


def test_a_search_begins_with_the_plans_found_for_other_models(tmp_path):
    rs.tune(mixture(), 8, objective=spread, shape=(2,), **LIMIT, trials=7, out=tmp_path)
    space = Space(mixture(), 8)
    known = [str(space.suggest(GivenTrial(each))) for each in space.known_plans()]
    assert len({*known}) == len(known) == 7  # nine presets, two of which have levels of their own
    assert [text for _, text, *_ in trials_of(tmp_path, 8)] == known


def test_a_search_of_a_flow_begins_with_a_known_plan_of_its_own_levels(tmp_path, monkeypatch):
    """The levels of the model that it was found for, at the same noise-to-data ratios."""
    name = "cifar10-pfgmpp-small-tuned-40"
    monkeypatch.setattr("restart_sampling.tuning.space.found_plans", lambda nfe: [PRESETS[name].plan])
    rs.tune(rs.from_flow(lambda x, t: x / 2, identity="flow"), 40, objective=spread, out=tmp_path, **ONE)
    [(_, text, *_)] = trials_of(tmp_path, 40)
    plan, found = Plan.parse(text), Plan.parse(name)
    ratios = [level / (1 - level) for level in plan.own_levels[1:]]
    assert (plan.own_levels[0], ratios) == (1, pytest.approx(found.own_levels[1:], rel=2e-3))
    assert [(each.points, each.repeats) for each in plan.intervals] == [(4, 1), (8, 1)]
    ends = [end / (1 - end) for each in plan.intervals for end in (each.t_min, each.t_max)]
    assert ends == pytest.approx([3.599, 12.9, 0.8087, 2.441], rel=2e-3)
    assert plan.s_min / (1 - plan.s_min) == pytest.approx(1.702, rel=2e-3)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("plan-5.json", lambda text: text.replace('"nfe": 5', '"nfe": 6', 1)),
        ("plan-5.json", lambda text: json.dumps({**json.loads(text), "plan": "5"})),
        ("plan-5.json", lambda text: json.dumps({**json.loads(text), "model_sha256": "ab" * 32})),
        ("plan-5.json", lambda text: '{"plan": "5"}'),
        ("plan-5.json", lambda text: "[]"),
        ("trials.journal", lambda text: f"lines\n{text}"),
        ("trials.journal", lambda text: text.replace('"op_code": 4', '"op_code": -4', 1)),
        ("trials.journal", lambda text: "".join(line for line in text.splitlines(True) if '{"plan"' not in line)),
        ("trials.journal", lambda text: re.sub('"system_attrs": {.*?}', '"system_attrs": 5', text)),
        ("trials.journal", lambda text: re.sub('"fixed_params": {.*?}', '"fixed_params": null', text)),
        ("trials.journal", lambda text: re.sub(r'"values": \[.+?\]', '"values": []', text)),
        ("trials.journal", lambda text: re.sub(r'"datetime_complete": ".+?"', '"datetime_complete": 5', text)),
        ("trials.journal", lambda text: re.sub(r'("polish in [^"]*": )\d+', r'\1"x"', text)),
        ("trials.journal", lambda text: re.sub(r'("polish in [^"]*": )\d+', r"\1true", text)),
        ("measured.jsonl", lambda text: text.replace('"values": [', '"values": ["a", ', 1)),
        ("measured.jsonl", lambda text: text.replace('"nfe": 5', '"nfe": "a"', 1)),
    ],
)
def test_a_damaged_file_of_a_run_is_refused(finished, tmp_path, file, damage):
    folder = Path(copytree(finished, tmp_path / "run"))
    text = (folder / file).read_text()
    if file != "plan-5.json":
        (folder / "plan-5.json").unlink()
    (folder / file).write_text(damage(text))
    with pytest.raises(InputError, match=r"remove what is damaged|is no result of tune"):
        rs.tune(mixture(), 5, out=folder, objective=spread, **ONE)


NO_SCORE = {"values": [float("nan")], "without": []}


@pytest.mark.parametrize(
    "damage",
    [
        *({"nfe": True}, {"search": True}, {"seeds": [False, 20]}, {"blocks": True}, {"seconds": True}),
        *({"plan": ["5"]}, {"stage": None}, {"seeds": [0]}, {"seeds": "ab"}, {"seeds": [5, 5]}, {"blocks": "1"}),
        *({"nfe": -1}, {"nfe": 1e999}, {"seconds": 0}, {"seconds": -5.0}, {"seconds": float("nan")}, {"more": 1}),
        *({"scores": {"": each}} for each in (NO_SCORE, {**NO_SCORE, "values": []}, {**NO_SCORE, "values": [1, 2]})),
        {"scores": {"": {**NO_SCORE, "values": [True]}}},
        {"scores": {"": {**NO_SCORE, "values": [1], "without": [[1, 2]]}}},
        {"scores": {"": {**NO_SCORE, "values": [1], "metrics": {"recall": float("inf")}}}},
    ],
)
def test_a_result_with_a_value_that_no_run_writes_is_refused(damage, finished, tmp_path):
    first, *lines = (finished / "measured.jsonl").read_bytes().splitlines(keepends=True)
    path = tmp_path / "measured.jsonl"
    path.write_bytes(b"".join([first, *lines, first[:30] + b"\n", b"\0" * 40]))  # as after kills
    assert len(list(read_measured(path))) == 1 + len(lines)
    for wrong in (json.dumps({**json.loads(first), **damage}).encode(), b"\xff", b"5", b"[" * 5000):
        path.write_bytes(first + wrong + b"\n")
        with pytest.raises(InputError, match="line 2: it is no result of tune"):
            list(read_measured(path))


@pytest.mark.parametrize(
    "levels", ["{}", '{"steps": true, "grids": {}}', '{"steps": 99, "grids": {"heun": {"2": [8, true]}}}']
)
def test_levels_that_are_damaged_are_refused(finished, tmp_path, levels):
    folder = Path(copytree(finished, tmp_path / "run"))
    (folder / "levels.json").write_text(levels)
    with pytest.raises(InputError, match="remove what is damaged"):
        rs.tune(mixture(), 5, out=folder, objective=spread, **ONE)


def test_most_steps_of_a_main_grid():
    for solver, calls in (("heun", lambda steps: 2 * steps - 1), ("ab", lambda steps: steps)):
        for nfe in (1, 2, 3, 8, 9, 1000):
            steps = main_steps(solver, nfe)
            assert calls(steps) <= nfe < calls(steps + 1)
    assert main_steps("dpm3", 2000) is main_steps("heun", 0) is None


def test_a_verdict_against_a_score_of_0():
    one = {"objective": Score((0.0,), ((0.0, 0.0),))}
    scores = {"a long plan": one, "b": {"objective": Score((0.0,), ((0.1, -0.1),))}}
    verdict = judge(scores, "a long plan", lambda plan: (0, len(plan)))
    assert verdict.plan == "b"
    assert "(from 0)" in verdict.text
    assert verdict.json()["gain"]["objective"]["relative"] is None


def test_what_is_lower_than_a_score_below_0_is_a_part_of_its_size_lower():
    scores = {plan: {"objective": Score((value,), ((value, value),))} for plan, value in (("a", -1.0), ("b", -1.25))}
    verdict = judge(scores, "a", lambda plan: (0, len(plan)))
    assert (verdict.plan, verdict.better) == ("b", True)
    assert verdict.json()["gain"]["objective"]["relative"] == -0.25
