"""The stages of one NFE: usual plans, search, polish, race, confirmation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.logbook import NOWHERE, Logbook
from restart_sampling.base.numbers import counted
from restart_sampling.tuning.allowed import GROUPS, ROUNDS
from restart_sampling.tuning.bench import LOOK, Bench, Measured
from restart_sampling.tuning.clock import (
    FEW,
    FINALISTS,
    FOUND,
    THIRD,
    USUAL,
    Clock,
    check_time,
    least_evaluations,
    seeds_later,
)
from restart_sampling.tuning.distance import NEIGHBOURS
from restart_sampling.tuning.limits import Limits
from restart_sampling.tuning.news import News
from restart_sampling.tuning.objective import Key, Scores
from restart_sampling.tuning.polish import POPULATION, polish
from restart_sampling.tuning.race import ALPHA, race
from restart_sampling.tuning.search import (
    PROMOTED,
    Candidates,
    begin_with,
    begun,
    best_plans,
    beyond_limits,
    importances,
    search,
)
from restart_sampling.tuning.settings import BLOCKS, Settings
from restart_sampling.tuning.sizes import Sizes, too_few
from restart_sampling.tuning.verdict import Verdict, judge, must_not_fall

CHECKED = 5
"""Found plans of which those are confirmed whose recall holds, at most."""
SHARE = 0.5
"""Of the time after the usual plans, the most that race and confirmation take; the rest is the search's."""
POLISH = 0.4
"""Of the time of the search, or of its trials, what the polish has."""


@dataclass
class Stages:
    """The stages of one NFE; all processes go through them.

    Attributes:
        space: what there is to choose from.
        bench: measures them.
        study: of `open_study`, of the first process; None on the others.
        settings: how a plan is looked for.
        samples: a folder for the first images of the plans that are confirmed.
        tell: is told of the progress, in sentences.
        log: gets the value of each plan that is measured, and the best so far.
    """

    space: Candidates
    bench: Bench
    study: Any
    settings: Settings
    samples: Path
    tell: Callable[[str], None]
    log: Logbook = NOWHERE

    def __post_init__(self) -> None:
        self.nfe = self.space.nfe
        self.clock = Clock(self.settings.minutes, self.bench.seconds(self.nfe))
        self.sizes = Sizes(self.settings.race, self.settings.confirm)
        self._extra = 0.0  # seconds of a confirmed plan beside its images
        self._checked = 0  # plans whose recall is compared before the confirmation
        self._generations = 0  # of the polish
        self.news = News(self.nfe, self.bench, self.clock, self.settings.seeds[1], self.tell, self.log)
        self.bench.told = self.news.told

    def run(self) -> Verdict:
        """Goes through all stages, or through what earlier starts left of them.

        Raises:
            InputError: the time does not suffice, or no usual plan could be measured.
        """
        first, second, third, last = self.settings.seeds
        usual = self._usual(first, second)
        self.news.limits = Limits.of(self.bench, usual[0], first, second)
        for key, result in self.bench.found.items():
            if result.is_of(self.nfe) or key.plan in usual:  # which another NFE may have measured first
                self.news.take(key, result)
        self._rehearse(usual[0], second)
        if self.settings.minutes < inf:
            self._fit()
        both = range(first.start, second.stop)
        third, last = third[: self.sizes.race], last[: BLOCKS * self.sizes.confirm]
        self._generations = self._polish_length(usual, both)
        few = too_few(self.sizes.confirm, self.bench.objective.features)
        for note in few.values():
            self.news.say("note", note)
        self.news.say("search", self._length())
        if self.study:
            known = [self.space.suggestion(text) for text in usual]
            begin_with(self.study, [each for each in known if each])
        search(
            self.space,
            self.bench,
            self.study,
            (first, second),
            sampler=self.settings.sampler,
            start=self.settings.start,
            limits=self.news.limits,
            until=self._is_over,
        )
        found = self.bench.ranks.gather(best_plans(self.study, FOUND) if self.study else [])[0]
        if beyond := self.bench.ranks.gather(beyond_limits(self.study) if self.study else 0)[0]:
            self.news.say(
                "search",
                f"{counted(beyond, 'trial', ',')} left out, worse by {self.news.limits.names} than the best usual plan",
            )
        found = [*self._polish([*found, *usual], usual[0], second, both), *found]
        ways = {self.space.way(plan): plan for plan in (*reversed(found), *usual)}  # of those of one way the best
        found = [plan for plan in dict.fromkeys(found) if ways[self.space.way(plan)] == plan and plan not in usual]
        found = found[:FOUND]
        self.news.say(
            "race",
            f"of {counted(len(found), 'found plan')} and {len(usual)} of the usual ones, on {len(third):,} fresh seeds",
        )
        found, usual = (race(self.bench, plans, third) for plans in (found, usual))
        return self._confirm(self._finalists(found, usual[0], third) if usual else [], usual, last, few)

    def _polish_length(self, usual: Sequence[str], seeds: range) -> int:
        """Counts the generations of the polish, which fit into its part of the search."""
        if not any(map(self.space.numbers, usual)):
            return 0
        searched = (1 - POLISH) * (self.clock.left - self._later(self.sizes)) * self.bench.speed(len(seeds)) / self.nfe
        if self.settings.trials is not None:
            searched = min(searched, self.settings.trials * (1 + 2 / PROMOTED) * self.settings.images)
        generations = int(POLISH / (1 - POLISH) * searched / (POPULATION * len(seeds)))
        return self._kept(self._name("polish"), max(0, generations))

    def _polish(self, found: Sequence[str], usual: str, known: range, seeds: range) -> list[str]:
        """Improves the numbers of the best of plans that were measured on the known seeds.

        The search of a later start is over where this one's is.
        """
        if not self._generations:
            return []
        self._kept(self._name("searched"), begun(self.study) if self.study else 0)
        self.news.say("polish", f"of the best plans, {counted(self._generations, 'generation')} of {POPULATION}")
        return polish(
            self.space,
            self.bench,
            self._ranked(found, self.bench.each("search", found, known)),
            seeds,
            generations=self._generations,
            start=self.settings.start,
            limits=Limits({seeds: self.bench.each("polish", [usual], seeds)[0]}),
            until=lambda: self.clock.left < self._later(self.sizes),
        )

    def _kept(self, name: str, value: Any) -> Any:
        """Returns what the first process chose, in the first start that chose something of this name."""
        if self.study:
            value = self.study.user_attrs.get(name, value)
            self.study.set_user_attr(name, value)
        return self.bench.ranks.gather(value)[0]

    def _name(self, what: str) -> str:
        """Names what is kept in the study: a start of other minutes or trials chooses anew."""
        return f"{what} in {self.settings.minutes:g} minutes, {self.settings.trials} trials"

    def cost(self) -> dict[str, Any]:
        """Returns JSON: what the search took, and what mattered in it."""
        seconds, evaluations = self.bench.seconds(self.nfe), self.bench.evaluations(self.nfe)
        polished = sum(each.stage == "polish" and each.is_of(self.nfe) for each in self.bench.found.values())
        own: dict[str, Any] = {}
        if self.study:
            own = {"trials": begun(self.study), "polished": polished, "importances": importances(self.study)}
        spent = {"evaluations": evaluations, "seconds": round(seconds, 1), "processes": self.bench.ranks.size}
        spent |= {f"{stage}_images": size for stage, size in self.sizes._asdict().items()}
        return spent | self.bench.ranks.gather(own)[0]

    def _usual(self, first: range, second: range) -> list[str]:
        """Measures the usual plans, the better ones on more seeds; returns the best."""
        plans = self.space.usual()
        self.news.begin_usual(plans)
        few, many = first[:FEW], range(min(FEW, self.settings.race // ROUNDS))
        size = self.bench.ranks.size
        if any(each.score for each in self.bench.each("usual", plans[: 3 * size], few)):  # to see how long that takes
            if len(many) > 2 * len(few):  # of which most of the time may be what a plan takes beside its images
                self.bench.each("usual", plans[:size], many)
            self._check_time(len(plans))
        good = self._ranked(plans, self.bench.each("usual", plans, few))
        self.news.asked = good = good[: max(2 * USUAL, len(plans) // THIRD)]
        good = self._ranked(good, self.bench.each("usual", good, first))[: 2 * USUAL]
        return self._ranked(good, [self.bench.together("usual", Key(plan, second)) for plan in good])[:USUAL]

    def _ranked(self, plans: Sequence[str], results: Sequence[Measured]) -> list[str]:
        """Lists the plans that could be measured, the best first."""
        if not any(each.score for each in results):
            raise InputError(f"none of the usual plans could be measured: {results[0].error}; {LOOK}")
        values = {plan: each.value for plan, each in zip(plans, results, strict=True) if each.score}
        return sorted(values, key=values.__getitem__)

    def _rehearse(self, usual: str, seeds: range) -> None:
        """Confirms the best usual plan on seeds of the search.

        So that a detector or a metric that fails does so early, and to see how long the metrics take and which there
        are.

        Raises:
            InputError: one fails.
        """
        tried = self.bench.together("rehearsal", Key(usual, seeds, groups=GROUPS, confirm=True))
        if tried.score is None:  # its images are those that it was measured on
            raise InputError(f"the confirmation cannot be measured: {tried.error}")
        self._extra = max(0.0, tried.seconds - len(seeds) * self.nfe / self.bench.speed(len(seeds)))
        self._checked = 1 + CHECKED if must_not_fall(tried.score, tried.score) else 0

    def _fit(self) -> None:
        """Cuts race and confirmation to what the time allows; what an earlier start of as many minutes chose stays."""
        fixed = self._later(Sizes(0, 0))
        part = (SHARE * self.clock.left - fixed) / (self._later(self.sizes) - fixed)
        self.sizes = Sizes(*self._kept(f"sizes in {self.settings.minutes:g} minutes", self.sizes.cut(part)))

    def _finalists(self, found: list[str], usual: str, seeds: range) -> list[str]:
        """Chooses from the leader of the race and the simplest of those close to it, where their recall holds.

        So that not all are left out after the confirmation: recall is compared with the best usual plan's on seeds of
        the race, by the search's detector (the others stay unseen). Where none holds, the leader is confirmed.
        """
        close = list(dict.fromkeys([*found[:1], *sorted(found[:CHECKED], key=self.space.complexity)]))
        if not close or not self._checked:
            return close[:FINALISTS]
        own = seeds[:NEIGHBOURS]
        known = self.bench.together("recall", Key(usual, own, confirm=True)).score
        holding: list[str] = []
        for plan in close:
            score = self.bench.together("recall", Key(plan, own, confirm=True)).score
            changes = must_not_fall(score, known) if score and known else []
            worse = [each.text for each in changes if each.is_worse(ALPHA / FINALISTS)]
            if worse := self.bench.ranks.gather(worse)[0]:
                self.news.say("race", f"`{plan}` is left out, worse beyond the error: {'; '.join(worse)}")
            else:
                holding.append(plan)
            if len(holding) == FINALISTS:
                break
        return holding or close[:1]

    def _confirm(self, finalists: list[str], usual: list[str], seeds: range, few: Mapping[str, str]) -> Verdict:
        """Confirms the finalists and the best usual plan."""
        self.news.say("confirmation", f"of {len(finalists)} found, and the best usual plan, on seeds that nothing used")
        scores: dict[str, Scores] = {}
        for plan in (*usual[:1], *finalists):
            key, keep = Key(plan, seeds, BLOCKS, GROUPS, confirm=True), self.samples / strip_name(self.nfe, plan)
            result = self.bench.together("confirm", key, keep)
            if result.scores:
                scores[plan] = result.scores
        if not usual or usual[0] not in scores:
            raise InputError(
                f"the best usual plans could not be measured on the seeds of race and confirmation; {LOOK}, or give "
                f"another --start"
            )
        verdict = judge(scores, usual[0], self.space.complexity, few)
        self.news.say("verdict", "\n" + verdict.text)
        return verdict

    def _length(self) -> str:
        """Says how long the search takes: until the time is over or the trials are done, of which some go on."""
        seconds, trials = self.clock.left - self._later(self.sizes) - self._polished(), self.settings.trials
        if trials is None:
            return f"about {max(seconds, 0):.0f} s"
        seeds = (1 + 2 / PROMOTED) * self.settings.images * (trials - (begun(self.study) if self.study else 0))
        seconds = min(seconds, seeds * self.nfe / self.bench.speed(self.settings.images))
        return f"about {max(seconds, 0):.0f} s, at most {counted(trials, 'trial', ',')}"

    def _later(self, sizes: Sizes) -> float:
        """Estimates the seconds that a race and a confirmation of these sizes need."""
        seeds = seeds_later(sizes) + self._checked * min(sizes.race, NEIGHBOURS)
        return seeds * self.nfe / self._speed_later + (1 + FINALISTS + self._checked) * self._extra

    @property
    def _speed_later(self) -> float:
        """Evaluations a second in race and confirmation."""
        return self.bench.speed(self.settings.race // ROUNDS)

    def _check_time(self, plans: int) -> None:
        """Makes sure, while nothing is lost, that there is time for all stages, with the fewest images for the last."""
        searched = self.bench.ranks.gather(bool(self.study and begun(self.study)))[0]
        missing = least_evaluations(self.settings, self.nfe, plans) / self._speed_later - self.clock.left
        if not searched:
            check_time(self.settings, self.nfe, self._speed_later, self.bench.ranks.gather(missing)[0])

    def _is_over(self, trials: int) -> bool:
        most = inf if self.settings.trials is None else self.settings.trials
        enough = trials >= min(most, self.study.user_attrs.get(self._name("searched"), inf))
        return enough or self.clock.left < self._later(self.sizes) + self._polished()

    def _polished(self) -> float:
        """Estimates the seconds that the polish needs."""
        images = 3 * self.settings.images
        return self._generations * POPULATION * images * self.nfe / self.bench.speed(images)


def strip_name(nfe: int, plan: str) -> str:
    """Names the file of the first images of a plan: another start may confirm other plans, in another order."""
    return f"{nfe}-{sha256(plan.encode()).hexdigest()[:8]}.png"
