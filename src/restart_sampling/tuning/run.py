"""A run of `tune`: its folder, and what is done for each NFE."""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import check_writable, is_partial, write_json
from restart_sampling.base.logbook import NOWHERE, Logbook
from restart_sampling.base.machine import describe_device, versions
from restart_sampling.base.ranks import Ranks
from restart_sampling.sampling.net import Net
from restart_sampling.sampling.plan import PLAN_FORMAT, Plan
from restart_sampling.tuning.bench import Bench
from restart_sampling.tuning.objective import Objective
from restart_sampling.tuning.restart_map import BASE, Marginals, best_intervals, map_levels, map_restarts
from restart_sampling.tuning.search import begin_with, open_study
from restart_sampling.tuning.settings import Settings
from restart_sampling.tuning.space import ODE_SOLVERS, Grids, Space, main_steps, with_levels
from restart_sampling.tuning.stages import Stages
from restart_sampling.tuning.teacher import SEEDS, Begin, KeptGrids, Teacher
from restart_sampling.tuning.usual import usual_plans

FORMAT = "restart-sampling-tune/1"
RUN, MEASURED, TRIALS, LEVELS, MAP = "run.json", "measured.jsonl", "trials.journal", "levels.json", "map.json"
SAMPLES = "samples"
ONLY_GRID = (
    "Restarts cannot be judged so: a fine ODE has the network's error, which restarts contract. Give a reference to "
    "tune them too."
)


@dataclass(frozen=True)
class Run:
    """The folder of a run, which is one model with one objective.

    Attributes:
        net: that is tuned.
        model: as the user names it.
        objective: gives the scores.
        settings: how a plan is looked for.
        ranks: the processes.
        folder: of the run.
        begin: starts seeds of the net, for stage 0; None: without it.
        batch: seeds at a time, there.
        tell: is told of the progress, in sentences.
        log: gets the values on the way.
    """

    net: Net
    model: str
    objective: Objective
    settings: Settings
    ranks: Ranks
    folder: Path
    begin: Begin | None = None
    batch: int = 64
    tell: Callable[[str], None] = lambda text: None
    log: Logbook = NOWHERE

    @property
    def about(self) -> dict[str, Any]:
        """JSON, what may not differ between starts."""
        settings = {key: value for key, value in asdict(self.settings).items() if key not in ("minutes", "trials")}
        return {"format": FORMAT, "model_sha256": self.net.identity, **self.objective.about, "settings": settings}

    def check(self, nfes: Sequence[int]) -> None:
        """Makes sure that the run can be made, or goes on with one of the same settings; writes nothing.

        Raises:
            InputError: an NFE is too little, or the folder holds something else or cannot be written.
        """
        for nfe in nfes:
            usual = usual_plans(self.net, Space(self.net, nfe, rises=self.settings.rises).nfe, self.settings.rises)
            if not usual:
                raise InputError(f"no usual plan of NFE {nfe} fits the model; give another NFE")
            self.objective.nfe(usual[0])
        path = self.folder / RUN
        check_writable(path)
        if path.exists():
            found = read_run(self.folder)
            differs = [key for key, value in _plain(self.about).items() if found.get(key) != value]
            if differs:
                old, new = (json.dumps(each.get(differs[0])) for each in (found, self.about))
                raise InputError(
                    f"{self.folder} holds another run, with {differs[0]} {old}, not {new}; choose another folder"
                )
        elif self.folder.exists() and not all(map(is_partial, self.folder.iterdir())):
            raise InputError(f"{self.folder} holds something else than a run of tune; choose another folder")

    def begin_folder(self, nfes: Sequence[int]) -> None:
        """Checks the run, and says whose folder it is. The first process calls this.

        Raises:
            InputError: as `check`.
        """
        self.check(nfes)
        write_json(self.folder / RUN, {**self.about, "model": self.model, "versions": versions("optuna")})

    def grids(self, nfes: Sequence[int]) -> Grids:
        """Returns the levels of stage 0, each solver's found when asked for; the first process alone needs them."""
        if self.begin is None or not self.ranks.first:
            return {}
        return KeptGrids(self.folder / LEVELS, Teacher(self.net, self.begin, max(nfes), batch=self.batch))

    def tune_grid(self, nfe: int) -> dict[str, Any]:
        """Finds the ODE solver and the grid of an NFE that stay closest to a fine ODE, and writes them."""
        assert self.begin is not None
        distances = self.ranks.gather(self._distances(nfe) if self.ranks.first else {})[0]
        best = min(distances, key=distances.__getitem__)
        usual = min((text for text in distances if not Plan.parse(text).own_levels), key=distances.__getitem__)
        verdict = (
            f"`{best}` ends {distances[best]:.4g} from a fine ODE (root mean square over {SEEDS} seeds), and the best "
            f"on a usual grid, `{usual}`, {distances[usual]:.4g}. {ONLY_GRID}"
        )
        self.tell(f"NFE {nfe}: {verdict}")
        about = {"objective": "root mean square distance to a fine ODE"}
        return self._write(nfe, best, about, {"verdict": verdict, "distances": distances})

    def _distances(self, nfe: int) -> dict[str, float]:
        """Measures ODE solvers on usual grids and those of stage 0, on other seeds than these come from."""
        assert self.begin is not None
        grids = self.grids([nfe])
        teacher = Teacher(self.net, self.begin, nfe, range(SEEDS, 2 * SEEDS), self.batch)
        found = {}
        for solver in ODE_SOLVERS:
            plain = Plan(main_steps(solver, nfe) or 1, solver=solver)
            levels = grids[solver].get(plain.steps)
            own = [with_levels(plain, levels)] if levels else []
            for plan in (plain, *(replace(plain, grid=rule) for rule in ("exponential", "time")), *own):
                with suppress(InputError):  # too many steps for the net's timesteps
                    found[str(plan)] = teacher.distance(plan)
        return found

    def tune(self, nfe: int, grids: Grids) -> dict[str, Any]:
        """Finds the plan of an NFE, and writes it; one that is there is final. All processes call this.

        Args:
            nfe: calls of the denoiser.
            grids: of stage 0.

        Returns:
            The content of its file.

        Raises:
            InputError: the time does not suffice, or no plan could be measured.
        """
        path = self.folder / f"plan-{nfe}.json"
        there = json.loads(path.read_text()) if self.ranks.first and path.exists() else None
        if there := self.ranks.gather(there)[0]:
            self.tell(f"NFE {nfe}: {path} is there already")
            return dict(there)
        bench = Bench(self.objective, self.ranks, self.folder / MEASURED)
        study = open_study(self.folder / TRIALS, f"NFE {nfe}") if self.ranks.first else None
        space = Space(self.net, nfe, grids, self.settings.rises)
        if study and self.settings.rises and (self.folder / MAP).exists():
            cells = json.loads((self.folder / MAP).read_text())["cells"]
            begin_with(study, [space.one_restart(*pair) for pair in best_intervals(cells)])
        stages = Stages(space, bench, study, self.settings, self.folder / SAMPLES, self.tell, self.log)
        verdict = stages.run()
        return self._write(nfe, verdict.plan, self.objective.about, {**verdict.json(), "cost": stages.cost()})

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
            if marginals:
                self.tell("map: drift of the ODE, and the additional error of a pass")
                content |= marginals.measure(map_levels(self.net))
            write_json(self.folder / MAP, content)
            best = max(cells, key=lambda cell: cell["gain"])
            interval = f"[{best['t_min']:g}, {best['t_max']:g}]"
            self.tell(f"map: most is gained at {interval}, {best['gain']:+.4g} +- {best['error']:.2g}")
        self.ranks.wait()

    def _write(self, nfe: int, plan: str, about: dict[str, Any], evidence: dict[str, Any]) -> dict[str, Any]:
        """Writes the file of a plan; returns its content."""
        content = {
            "format": PLAN_FORMAT,
            "plan": plan,
            "nfe": nfe,
            "model": self.model,
            "model_sha256": self.net.identity,
            **about,
            "device": f"{self.ranks.size} x {describe_device(self.ranks.device)}",
            "evidence": evidence,
        }
        if self.ranks.first:
            write_json(self.folder / f"plan-{nfe}.json", content)
        return content


def read_run(folder: Path) -> dict[str, Any]:
    """Reads what a run says of itself.

    Raises:
        InputError: the folder holds no run of tune.
    """
    path = folder / RUN
    try:
        found = json.loads(path.read_text())
        if found["format"] == FORMAT:
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is no run of tune; choose another folder")


def _plain(content: Any) -> Any:
    """Returns content as it comes back from JSON."""
    return json.loads(json.dumps(content))
