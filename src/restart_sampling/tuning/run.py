"""A run of `tune`: its folder, and what is done for each NFE."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from restart_sampling.base.errors import InputError, one_line, shorten
from restart_sampling.base.files import check_writable, is_partial, remove_partials, write_json
from restart_sampling.base.lock import lock_in, locked
from restart_sampling.base.logbook import NOWHERE, Logbook
from restart_sampling.base.machine import describe_device, versions
from restart_sampling.base.numbers import is_finite, is_whole
from restart_sampling.base.ranks import Ranks
from restart_sampling.base.strict_json import parse_json, parse_numbers
from restart_sampling.sampling.plan_file import PLAN_FORMAT
from restart_sampling.tuning.ahead import check_times, first_speed
from restart_sampling.tuning.bench import Bench
from restart_sampling.tuning.distance import Distance
from restart_sampling.tuning.objective import Objective
from restart_sampling.tuning.search import Candidates, begin_with, open_study
from restart_sampling.tuning.settings import Settings
from restart_sampling.tuning.stages import Stages

FORMAT = "restart-sampling-tune/1"
RUN, MEASURED, TRIALS, MAP = "run.json", "measured.jsonl", "trials.journal", "map.json"
SAMPLES = "samples"
_BEFORE = {"class": None, "guidance": 1.0, "noise": "counter"}
"""What a run of an earlier version is taken to have had; of what else it does not say nothing is known."""
_OF_DAMAGE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What is raised where a file is not as a run wrote it; Optuna asserts what its journal says."""
_SAID_LATER = {"objective_sha256", "D"}
"""What a run of an earlier version by a function does not say: the function's code, and D of a PFGM++ net."""
_SAID = {"arithmetic", "objective_sha256"}
"""Of which later ones say one: these say all that they had."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The folder of a run, which is one model with one objective.

    Attributes:
        model: as the user names it.
        identity: of the model; None: it has none.
        objective: gives the scores.
        settings: how a sampler is looked for.
        ranks: the processes.
        folder: of the run.
        tell: is told of the progress, in sentences.
        log: gets the values on the way.
    """

    model: str
    identity: str | None
    objective: Objective
    settings: Settings
    ranks: Ranks
    folder: Path
    tell: Callable[[str], None] = lambda text: None
    log: Logbook = NOWHERE

    @property
    def about(self) -> dict[str, Any]:
        """JSON, what may not differ between starts."""
        own = {"model_sha256": self.identity, **self.objective.about, "settings": self.settings.about}
        return {"format": FORMAT, **own}

    def plan_file(self, nfe: int) -> Path:
        """Names the file of the plan of an NFE; one that is there is final."""
        return self.folder / f"plan-{nfe}.json"

    def form(self, plan: str) -> dict[str, Any]:
        """Makes JSON: what the file of a plan says first."""
        return {"format": PLAN_FORMAT}

    def check(self, spaces: Sequence[Candidates]) -> None:
        """Makes sure that the run can be made, or goes on with one of the same settings; writes nothing.

        Args:
            spaces: what there is to choose from, for each NFE.

        Raises:
            InputError: nothing fits an NFE, or the folder holds something else or cannot be written.
        """
        for space in spaces:
            usual = space.usual()
            if not usual:
                raise InputError(f"no usual plan of NFE {space.nfe} fits the model; give another NFE")
            self.objective.nfe(usual[0])
        path = self.folder / RUN
        check_writable(path)
        if path.exists():
            self._check_same(read_run(self.folder))
        elif self.folder.exists() and not all(map(is_partial, self.folder.iterdir())):
            raise InputError(f"{self.folder} holds something else than a run of tune; choose another folder")

    def _check_same(self, found: Mapping[str, Any]) -> None:
        """Makes sure that a run that is there is this one."""
        own, is_later = _plain(self.about), not _SAID.isdisjoint(found)
        for key in {**own, **found}:
            new = own.get(key)
            old = found.get(key, None if is_later else _BEFORE.get(key, new))
            unknown = key in _SAID_LATER and old is None
            if (
                old not in (new, self.objective.about_before.get(key, new))
                and not unknown
                and key not in ("model", "versions")
            ):
                raise InputError(
                    f"{self.folder} holds another run, with {key} {json.dumps(old)}, not {json.dumps(new)}; choose "
                    f"another folder"
                )

    def check_time(self, spaces: Sequence[Candidates]) -> None:
        """Makes sure that the minutes suffice, by the first evaluations, on a CPU and where nothing is measured yet.

        A GPU may compile first, or has yet to find how many images pay; there the first plans say it, in seconds.

        Raises:
            InputError: they do not suffice.
        """
        judge = self.objective
        begun = self.settings.minutes == inf or (self.folder / MEASURED).exists()
        if begun or not spaces or self.ranks.device.type != "cpu" or not isinstance(judge, Distance):
            return
        if setups := [*judge.setups.values()]:
            drawing = judge.draw(spaces[0].usual()[0])
            check_times(self.settings, spaces, first_speed(drawing, setups, spaces[0].nfe, self.ranks))

    def begin_folder(self, spaces: Sequence[Candidates]) -> None:
        """Checks the run, and says whose folder it is. The first process calls this.

        Raises:
            InputError: as `check` and `check_time`.
        """
        self.check(spaces)
        self.check_time(spaces)
        remove_partials(self.folder, "*")
        remove_partials(self.folder / SAMPLES, "*")
        write_json(self.folder / RUN, {**self.about, "model": self.model, "versions": versions("optuna")})

    def tune(self, space: Candidates, first: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Finds the sampler of an NFE, and writes it; one that is there is final. All processes call this.

        Args:
            space: what there is to choose from.
            first: what the first trials take.

        Returns:
            The content of its file.

        Raises:
            InputError: the time does not suffice, or no sampler could be measured.
        """
        nfe = space.nfe
        path = self.plan_file(nfe)
        self.ranks.agree(_plain(self.about))
        with whole(self.folder):
            there = self._there(path, nfe) if self.ranks.first and path.exists() else None
        if there := self.ranks.gather(there)[0]:
            self.tell(f"NFE {nfe}: {path} is there already")
            return dict(there)
        bench = Bench(self.objective, self.ranks, self.folder / MEASURED, nfe)
        with whole(self.folder):
            study = open_study(self.folder / TRIALS, f"NFE {nfe}") if self.ranks.first else None
        if study:
            begin_with(study, first)
        stages = Stages(space, bench, study, self.settings, self.folder / SAMPLES, self.tell, self.log)
        verdict = stages.run()
        return self.write(nfe, verdict.plan, self.objective.about, {**verdict.json(), "cost": stages.cost()})

    def _there(self, path: Path, nfe: int) -> dict[str, Any]:
        """Reads the file of a plan that an earlier start of this run found."""
        content = dict(json.loads(path.read_text("utf-8")))
        confirmed = content["plan"] in content["evidence"]["scores"]
        if not confirmed or (content["nfe"], content["model_sha256"]) != (nfe, self.identity):
            raise ValueError(f"{path.name} is not as this run wrote it")
        return content

    def write(self, nfe: int, plan: str, about: dict[str, Any], evidence: dict[str, Any]) -> dict[str, Any]:
        """Writes the file of a plan; returns its content."""
        form = self.form(plan)
        content = {
            **form,
            "plan": plan,
            "nfe": nfe,
            "model": self.model,
            "model_sha256": self.identity,
            **{key: value for key, value in about.items() if key not in form},  # a scale of the plan's own is its own
            "device": f"{self.ranks.size} x {describe_device(self.ranks.device)}",
            "evidence": evidence,
        }
        if self.ranks.first:
            write_json(self.plan_file(nfe), content)
        return content


@contextmanager
def claimed_folder(out: str | Path | None) -> Iterator[Path]:
    """Keeps other processes from the folder of a run in the body.

    Args:
        out: the folder; None: one that is removed at the end.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run" if out is None else Path(out)
        with locked(lock_in(folder), str(folder), "out"):
            yield folder


def read_run(folder: Path) -> dict[str, Any]:
    """Reads what a run says of itself.

    Raises:
        InputError: the folder holds no run of tune.
    """
    path = folder / RUN
    try:
        found = parse_json(path.read_text("utf-8"))
        if found["format"] == FORMAT and isinstance(found["model"], str):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is no run of tune; choose another folder")


def read_plans(folder: Path) -> list[dict[str, Any]]:
    """Reads the files of the plans that a run found, by their NFE.

    Raises:
        ValueError, or others: one is damaged; see `whole`.
    """
    plans = [dict(parse_json(path.read_text("utf-8"))) for path in folder.glob("plan-*.json")]
    for content in plans:
        if not (is_whole(content["nfe"]) and is_finite(content.get("guidance", 1.0))):
            raise ValueError(f"the NFE and the guidance of {content['plan']} have to be numbers")
    return sorted(plans, key=lambda content: content["nfe"])


def read_map(folder: Path) -> dict[str, Any]:
    """Reads the map of a run; raises as `read_plans`."""
    return dict(parse_numbers((folder / MAP).read_text("utf-8")))


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """Refuses in one sentence the files of a run that are damaged; the body reads them.

    Raises:
        InputError: they are.
    """
    try:
        yield
    except _OF_DAMAGE as error:
        if isinstance(error, InputError):
            raise
        reason = shorten(one_line(error))
        raise InputError(
            f"{folder} holds damaged files of tune ({reason}); remove what is damaged, and let "
            "'restart-sampling tune' make it again"
        ) from error


def _plain(content: Any) -> Any:
    """Returns content as it comes back from JSON."""
    return json.loads(json.dumps(content))
