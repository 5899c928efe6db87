"""A run of `tune` of a net: stage 0 and the map beside what all runs have."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import write_json
from restart_sampling.base.numbers import counted, with_error
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.net_plan import image_traits, known_levels
from restart_sampling.sampling.plan import Plan
from restart_sampling.tuning.bench import Bench
from restart_sampling.tuning.budget import main_steps
from restart_sampling.tuning.news import SECONDS_BETWEEN_WORDS
from restart_sampling.tuning.own_levels import with_levels
from restart_sampling.tuning.restart_map import BASE, Marginals, best_intervals, map_levels, map_restarts
from restart_sampling.tuning.run import MAP, MEASURED, Run, read_map, whole
from restart_sampling.tuning.space import ODE_SOLVERS, Grids, Space
from restart_sampling.tuning.teacher import POINTS, SEEDS, Begin, KeptGrids, Teacher

LEVELS = "levels.json"
STAGE_0 = 0.05
"""Of the minutes of an NFE, at most, while a search needs its levels."""
ONLY_GRID = (
    "Restarts cannot be judged so: a fine ODE has the network's error, which restarts contract. Give a reference to "
    "tune them too."
)


@dataclass(frozen=True, kw_only=True)
class NetRun(Run):
    """The folder of a run of a net.

    Attributes:
        net: that is tuned.
        begin: starts its seeds, for stage 0; None: without it.
        batch: seeds at a time, there.
        guidance: scale that plans have, or that theirs is searched around.
    """

    net: Net
    begin: Begin | None = None
    batch: int = 64
    guidance: float = 1.0

    def space(self, nfe: int, grids: Grids | None = None) -> Space:
        """Makes the space of the plans of an NFE; `grids` of stage 0."""
        settings = self.settings
        around = self.guidance if settings.tune_guidance else None
        if around is not None and not image_traits(self.net).label_dim:
            raise InputError("the model is unconditional, so there is no guidance scale to search; leave that out")
        allowed = settings.rises, settings.restarts, settings.solvers, settings.known
        return Space(self.net, nfe, grids or {}, *allowed, around)

    def form(self, plan: str) -> dict[str, Any]:
        """Makes JSON: what the file of a plan says first."""
        scale, own = Plan.parse_found(plan).guidance, getattr(self.net, "own_identity", None)
        more = {"guidance": scale, "net_sha256": own}
        kept = {key: value for key, value in more.items() if value is not None}
        return {**super().form(plan), "levels": known_levels(self.net), **kept}

    def tune_plan(self, nfe: int, grids: Grids) -> dict[str, Any]:
        """Finds the plan of an NFE, as `tune` does, beginning with known plans and the best intervals of a map.

        Args:
            nfe: calls of the denoiser.
            grids: of stage 0.
        """
        space = self.space(nfe, grids)
        first = space.known_plans()
        if self.settings.rises and self.settings.restarts and (self.folder / MAP).exists():
            with whole(self.folder):
                best = best_intervals(read_map(self.folder)["cells"])
            first += [space.one_restart(*pair) for pair in best]
        return self.tune(space, first)

    def grids(self, nfes: Sequence[int]) -> Grids:
        """Returns the levels of stage 0, each solver's found when asked for; the first process alone needs them."""
        if self.begin is None or not self.ranks.first:
            return {}
        seconds = STAGE_0 * 60 * self.settings.minutes
        teacher = Teacher(self.net, self.begin, max(nfes), batch=self.batch, seconds=seconds)
        with whole(self.folder):
            return KeptGrids(self.folder / LEVELS, teacher)

    def tune_grid(self, nfe: int) -> dict[str, Any]:
        """Finds the ODE solver and the grid of an NFE that stay closest to a fine ODE, and writes them.

        Raises:
            InputError: the time does not suffice.
        """
        assert self.begin is not None
        self.ranks.agree({"model_sha256": self.identity})
        plain = [Plan(main_steps(solver, nfe) or 1, solver=solver) for solver in ODE_SOLVERS]
        # For each solver three usual grids and one of stage 0, which needs the fine ODE once more.
        calls = 4 * nfe * len(plain) + 2 * max(POINTS, 2 * nfe)
        seconds = 60 * self.settings.minutes
        judge = Teacher(self.net, self.begin, nfe, range(SEEDS, 2 * SEEDS), self.batch, seconds, calls)
        seeds, needed = self.ranks.gather((len(judge.seeds), len(judge.seeds) * judge.seed_seconds))[0]
        if needed > seconds:
            raise InputError(
                f"{counted(self.settings.minutes, 'minute', 'g')} for NFE {nfe} is too little: {seeds} seeds need "
                f"about {counted(ceil(needed / 60), 'minute')} on this device; give them, or a GPU"
            )
        self.tell(f"NFE {nfe}: {len(plain)} solvers, of {seeds} seeds; about {max(needed / 60, 0.1):.1f} minutes")
        distances = self.ranks.gather(self._distances(plain, judge) if self.ranks.first else {})[0]
        best = min(distances, key=distances.__getitem__)
        usual = min((text for text in distances if not Plan.parse(text).own_levels), key=distances.__getitem__)
        verdict = (
            f"`{best}` ends {distances[best]:.4g} from a fine ODE (root mean square over {seeds} seeds), and the best "
            f"on a usual grid, `{usual}`, {distances[usual]:.4g}. {ONLY_GRID}"
        )
        self.tell(f"NFE {nfe}: {verdict}")
        guidance = self.objective.about["guidance"]
        about = {"objective": "root mean square distance to a fine ODE", "guidance": guidance, "D": self.net.D}
        return self.write(nfe, best, about, {"verdict": verdict, "distances": distances})

    def _distances(self, plans: Sequence[Plan], judge: Teacher) -> dict[str, float]:
        """Measures ODE solvers on usual grids and those of stage 0, on other seeds than these come from."""
        assert self.begin is not None
        teacher = Teacher(self.net, self.begin, judge.steps, range(len(judge.seeds)), self.batch)
        grids = KeptGrids(self.folder / LEVELS, teacher)
        found: dict[str, float] = {}
        start = said = time.monotonic()
        for done, plain in enumerate(plans):
            if found and time.monotonic() > said + SECONDS_BETWEEN_WORDS:
                said, best = time.monotonic(), min(found, key=found.__getitem__)
                left = (said - start) * (len(plans) - done) / done
                self.tell(
                    f"solver {done + 1} of {len(plans)}; the closest so far `{best}`; {left / 60:.1f} minutes left"
                )
            levels = grids[plain.solver].get(plain.steps)
            own = [with_levels(plain, levels)] if levels else []
            for plan in (plain, *(replace(plain, grid=rule) for rule in ("exponential", "time")), *own):
                with suppress(InputError):  # too many steps for the net's timesteps
                    found[str(plan)] = judge.distance(plan)
        return found

    def map(self, marginals: Marginals | None) -> None:
        """Makes the map of the model, and writes it; all processes call this.

        Args:
            marginals: to compare the ODE's states with true data; None: without.
        """
        bench = Bench(self.objective, self.ranks, self.folder / MEASURED)
        self.tell("map: one restart at each pair of levels")
        cells = map_restarts(self.net, bench, range(self.settings.seeds[1].stop))
        if self.ranks.first:
            content: dict[str, Any] = {"base": BASE, "cells": cells}
            if detectors := self.objective.about.get("detectors"):  # a function of the user's has none
                content["detector"] = next(iter(detectors))
            if marginals:
                self.tell("map: drift of the ODE, and the additional error of a pass")
                content |= marginals.measure(map_levels(self.net))
            write_json(self.folder / MAP, content)
            best = max(cells, key=lambda cell: cell["gain"])
            interval = f"[{best['t_min']:g}, {best['t_max']:g}]"
            self.tell(f"map: most is gained at {interval}, {with_error(best['gain'], best['error'], sign='+')}")
        self.ranks.wait()
