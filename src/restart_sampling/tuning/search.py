"""`search`: Optuna suggests plans, on common seeds; few samples of each, more of the good ones."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from restart_sampling.base.errors import InputError, require_extra
from restart_sampling.base.numbers import is_whole
from restart_sampling.tuning.bench import Bench, Measured
from restart_sampling.tuning.given_trial import GIVEN
from restart_sampling.tuning.limits import Limits
from restart_sampling.tuning.numbers import Numbers
from restart_sampling.tuning.objective import Key

RANDOM_TRIALS = 25
"""Trials before a sampler goes by what was found: the best usual plans, and random ones."""
PROMOTED = 3
"""One of so many trials goes on to more samples."""


class Candidates(Protocol):
    """The samplers of an NFE that are searched, which are told apart by their texts."""

    @property
    def nfe(self) -> int:
        """What each costs, or one evaluation more."""

    def suggest(self, trial: Any) -> Any:
        """Makes the sampler that an Optuna trial suggests.

        Raises:
            InputError: there is none.
        """

    def text(self, sampler: Any) -> str:
        """Writes a sampler that was suggested."""

    def usual(self) -> list[str]:
        """Lists what one would try without a search."""

    def complexity(self, text: str) -> tuple[int, int]:
        """Orders samplers from the simplest."""

    def suggestion(self, text: str) -> Mapping[str, Any] | None:
        """Returns what a trial has to suggest for a sampler, as near as it comes; None: no trial suggests it."""

    def way(self, text: str) -> object:
        """Returns what a sampler does: those with other texts and the same way are one."""

    def numbers(self, text: str) -> Numbers | None:
        """Returns the numbers of a sampler, for the polish; None: it is not polished."""


def open_study(path: Path, name: str) -> Any:
    """Opens the trials of an NFE in a run's file, which `optuna-dashboard` reads too.

    Args:
        path: of Optuna's journal.
        name: of the study in it.

    Raises:
        ValueError, or others as of Optuna: the journal is damaged.
    """
    require_extra("optuna", "tune")
    import optuna
    from optuna.storages import JournalStorage

    from restart_sampling.tuning.journal import Journal, remove_begun

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    remove_begun(path)
    with _quiet():
        storage = JournalStorage(Journal(path))
        study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    for key, kept in study.user_attrs.items():
        if not all(map(is_whole, kept if isinstance(kept, list) else [kept])):
            raise ValueError(f"{key} is no number")
    for trial in study.get_trials(deepcopy=False):
        own, state = trial.system_attrs, trial.state.name
        if not (isinstance(own, dict) and isinstance(own.get("fixed_params", {}), dict)):
            raise ValueError(f"trial {trial.number} has no settings of its sampler")
        if not isinstance(trial.user_attrs.get("plan"), str) and state in ("COMPLETE", "PRUNED"):
            raise ValueError(f"trial {trial.number} has no plan")
        if not trial.values and state == "COMPLETE":
            raise ValueError(f"trial {trial.number} has no value")
    return study


def search(
    space: Candidates,
    bench: Bench,
    study: Any,
    seeds: tuple[range, range],
    *,
    sampler: str = "tpe",
    start: int = 0,
    limits: Limits,
    until: Callable[[int], bool],
) -> None:
    """Measures plans that Optuna suggests until it is time to stop; all processes call this.

    Each process takes a trial of its own on the first seeds, and all share the second ones of those that go on. A trial
    depends on those before it and on its number: a killed run goes on, on as many processes, with the trials that it
    would have had.

    Args:
        space: what there is to choose from.
        bench: measures them.
        study: of `open_study`, of the first process; None on the others.
        seeds: of all trials, and of those that go on.
        sampler: of `SEARCHES`.
        start: another one makes another search.
        limits: a trial that lies beyond them is not among the best, whatever its value, and tells the sampler so.
        until: says whether it is time to stop, given the number of trials; the first process is asked.
    """
    first, second = seeds
    trials = _rounds(space, study, bench.ranks.size, sampler, start, until) if bench.ranks.first else iter(())
    while True:
        dealt = next(trials, [])
        plans = bench.ranks.gather([plan for _, plan in dealt])[0]
        if not plans:
            return
        results = bench.each("search", plans, first)
        allowed = [limits.hold(first, result) for result in results]
        for (trial, _), result, within in zip(dealt, results, allowed, strict=False):
            if within:  # the best third is one of those that could be taken
                _report(study, trial, result)
        good = [
            within and _goes_on(study, trial, result)
            for (trial, _), result, within in zip(dealt, results, allowed, strict=False)
        ]
        good = bench.ranks.gather(good)[0]
        more = [
            bench.together("search", Key(plan, second)) if goes_on else None
            for plan, goes_on in zip(plans, good, strict=True)
        ]
        for (trial, _), result, last in zip(dealt, results, more, strict=False):
            beyond = limits.beyond(second, last) if last else limits.beyond(first, result)
            _tell(study, trial, result, last, beyond)


def begin_with(study: Any, suggestions: Sequence[Mapping[str, Any]]) -> None:
    """Has the first trials take settings that are known to be good; those of an earlier start are not asked again."""
    with _quiet():
        for suggestion in suggestions:
            given = {key: value for key, value in suggestion.items() if key == GIVEN}
            settings = {key: value for key, value in suggestion.items() if key != GIVEN}
            study.enqueue_trial(settings, given, skip_if_exists=True)


def best_plans(study: Any, count: int) -> list[str]:
    """Lists the texts of the best plans that were measured on the second seeds, the best first."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    ranked = sorted(trials, key=lambda trial: (trial.value, trial.number))
    return list(dict.fromkeys(trial.user_attrs["plan"] for trial in ranked))[:count]


def beyond_limits(study: Any) -> int:
    """Counts the trials that lie beyond a limit."""
    trials = study.get_trials(deepcopy=False)
    return sum(any(value > 0 for value in trial.constraints.values()) for trial in trials)


def importances(study: Any) -> dict[str, float]:
    """Returns how much each setting decides whether a plan is among the best; {}: too few plans to tell.

    Source: Watanabe et al. 2023 (arXiv 2304.10255): PED-ANOVA.
    """
    import optuna

    if len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))) < RANDOM_TRIALS:
        return {}
    with warnings.catch_warnings(action="ignore"):  # that some settings are in few plans
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: value for name, value in found.items() if value > 0}


def _rounds(
    space: Candidates, study: Any, size: int, sampler: str, start: int, until: Callable[[int], bool]
) -> Iterator[list[tuple[Any, str]]]:
    """Yields trials with their plans, one for each process; those first that an earlier start did not finish."""
    from optuna.trial import Trial, TrialState

    trials = study.get_trials(deepcopy=False)
    unfinished = [trial for trial in trials if trial.state == TrialState.RUNNING]
    # A round that was ended in its middle gets no trials of the next one.
    done = sum("plan" in trial.user_attrs for trial in trials) - len(unfinished)
    missing = size - done % size
    while unfinished or not until(begun(study)):
        dealt: list[tuple[Any, str]] = []
        while len(dealt) < missing:
            number = unfinished[0].number if unfinished else begun(study)
            study.sampler = _sampler(sampler, 1000003 * start + number)
            with _quiet():
                trial = Trial(study, unfinished.pop(0)._trial_id) if unfinished else study.ask()
                try:
                    suggested = space.text(space.suggest(trial))
                except InputError:
                    study.tell(trial, state=TrialState.FAIL)
                    if not unfinished and until(begun(study)):  # or nothing that is suggested could be a plan
                        break
                    continue
            plan = trial.user_attrs.get(GIVEN, suggested)
            trial.set_user_attr("plan", plan)
            dealt.append((trial, plan))
        missing = size
        if dealt:
            yield dealt


def begun(study: Any) -> int:
    """Counts the trials, but those that only wait to be asked for."""
    return sum(trial.state.name != "WAITING" for trial in study.get_trials(deepcopy=False))


def _sampler(name: str, seed: int) -> Any:
    """Makes Optuna's sampler anew for each trial: then its random numbers need not be kept for a later start."""
    import optuna

    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with _quiet():
        if name == "cma-es":
            return optuna.samplers.CmaEsSampler(
                seed=seed, n_startup_trials=RANDOM_TRIALS, warn_independent_sampling=False
            )
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM_TRIALS, multivariate=True, group=True, constant_liar=True
        )


def _report(study: Any, trial: Any, result: Measured) -> None:
    """Writes the value on the first seeds into the study, unless an earlier start did."""
    if result.score and trial.number not in _reported(study):
        trial.report(result.value, 1)


def _goes_on(study: Any, trial: Any, result: Measured) -> bool:
    """Tells whether a trial is among the best of those before it; Optuna's pruners would judge anew after a kill."""
    before = [value for number, value in _reported(study).items() if number < trial.number]
    return result.score is not None and PROMOTED * sum(value < result.value for value in before) <= len(before)


def _reported(study: Any) -> dict[int, float]:
    """Returns the values on the first seeds, by the number of the trial."""
    trials = study.get_trials(deepcopy=False)
    return {trial.number: trial.intermediate_values[1] for trial in trials if 1 in trial.intermediate_values}


def _tell(study: Any, trial: Any, result: Measured, last: Measured | None, beyond: Mapping[str, float]) -> None:
    """Ends a trial. One beyond a limit is pruned, for samplers without constraints; TPE goes by how far it is."""
    from optuna.trial import TrialState

    for name, value in beyond.items():
        trial.set_constraint(name, value)
    with warnings.catch_warnings(action="ignore"):  # that CMA-ES has no constraints
        if result.score is None or (last and last.score is None):
            study.tell(trial, state=TrialState.FAIL)
        elif last is None or any(value > 0 for value in beyond.values()):
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, last.value)


@contextmanager
def _quiet() -> Iterator[None]:
    """Runs the body without Optuna's notes that a part of it may change."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
