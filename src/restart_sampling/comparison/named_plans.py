"""Named plans to compare, read from text, CSV, TOML or presets."""

import csv
import io
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import isfinite
from pathlib import Path
from typing import Any

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import decode_text
from restart_sampling.sampling.plan import SETTINGS as PLAN_SETTINGS
from restart_sampling.sampling.plan import Plan
from restart_sampling.sampling.presets import PRESETS

SETTINGS = tuple(entry.name for entry in PLAN_SETTINGS)
CHECKED = ("nfe",)
REMARKS = ("dataset", "checkpoint", "note")
COLUMNS = ("name", "plan", "family", "steps", "intervals", *SETTINGS, "fid_paper", *CHECKED, *REMARKS)
"""Of a CSV or a TOML file. A row has `plan`, or `steps` and `intervals`; the settings come over it."""

_FORMS = "a text file with a plan a line, a .csv, a .toml, a .json of tune, presets such as 'cifar10-vp-*', or a plan"


@dataclass(frozen=True)
class NamedPlan:
    """A plan to compare with others.

    Attributes:
        name: of the row, for tables and plots.
        plan: the sampler.
        family: plans of one family are one line of a plot.
        published: FID that the paper prints for it, with the paper's model; None: none.
        nfe: what the row says that it takes; None: nothing.
    """

    name: str
    plan: Plan
    family: str
    published: float | None = None
    nfe: float | None = None

    @classmethod
    def of(cls, plan: Plan, name: str = "", family: str = "", published: float | None = None) -> "NamedPlan":
        """Names a plan: by its text and its own family, unless there are others."""
        return cls(name or plan.with_guidance, plan, family or family_of(plan), published)

    def check_nfe(self, nfe: int) -> None:
        """Makes sure that the plan takes as many evaluations on its model as the row says.

        Raises:
            InputError: it takes `nfe`.
        """
        if self.nfe not in (None, nfe):
            raise InputError(f"nfe is {self.nfe:g}, but the plan '{self.plan}' takes {nfe}; correct one of them")


def family_of(plan: Plan) -> str:
    """Names the family that a plan belongs to unless its row says another: `ODE (heun)`, `Restart (heun, churn)`."""
    main, restart = plan.solvers
    if plan.intervals:
        solvers = plan.solver if restart == main else f"{plan.solver} + {plan.restart_solver}"
        return f"Restart ({solvers}{', churn' if plan.gamma or plan.churn else ''})"
    if plan.churn:
        return f"SDE ({plan.solver}, churn)"
    return f"{'SDE' if plan.path().noisy_falls(main) else 'ODE'} ({plan.solver})"


def read_rows(source: str) -> list[NamedPlan]:
    """Reads the rows of a file, or of the presets that match a pattern.

    Args:
        source: a file with a plan a line (`#` begins a comment), a `.csv` or a `.toml` (tables `[[row]]`) with
            `COLUMNS`, a pattern such as `cifar10-vp-*`, or a plan. A line of the original's `params_*.txt` gets the
            settings of `script_settings` that it does not state, unless it is a preset.

    Raises:
        InputError: no such file or preset, or a row that is not a plan; the message names the row.
    """
    path = Path(source)
    if not path.is_file():
        if presets := [name for name in PRESETS if fnmatchcase(name, source)]:
            return [NamedPlan.of(Plan.parse(name), name) for name in presets]
        with suppress(InputError):
            return [NamedPlan.of(Plan.parse(source))]
        raise InputError(f"--plans {source}: there is no such file, and no preset of that name; give {_FORMS}")
    if path.suffix == ".json":
        return [NamedPlan.of(Plan.parse(source))]
    try:
        text = decode_text(path.read_bytes(), f"--plans {source}")
    except OSError as error:
        raise InputError(f"--plans {source} cannot be read ({error.strerror}); give {_FORMS}") from error
    readers = {".csv": _csv_rows, ".toml": _toml_rows}
    rows = [
        _read(f"{source}, {place}", entries)
        for place, entries in readers.get(path.suffix.lower(), _lines)(source, text)
    ]
    if not rows:
        raise InputError(f"--plans {source}: there is no plan in it; give {_FORMS}")
    return rows


def script_settings(source: str) -> str:
    """Returns what the original's sweep script (hyperparam.py) passes with each line of a `params_DATASET_METHOD.txt`.

    Its files hold only the number of steps and the intervals. The name is known in small and capital letters, and
    ImageNet's by any word that begins with it; "" for other sources.
    """
    name = Path(source).name.lower()
    if not re.fullmatch(r"params_.*\.txt", name) or not Path(source).is_file():
        return ""
    return f"gamma=0.05 s_min=0.01 s_max=1 s_noise={1.003 if '_imagenet' in name else 1:g}"


def check_different(rows: Sequence[NamedPlan], effect: Callable[[Plan], Hashable] = str) -> None:
    """Makes sure that no two rows have one name or one plan.

    Args:
        rows: all of them.
        effect: equal for plans that draw the same samples, as `Plan.effect` of a model is.

    Raises:
        InputError: two are alike.
    """
    names: set[str] = set()
    plans: dict[Hashable, NamedPlan] = {}
    for row in rows:
        other = plans.setdefault(effect(row.plan), row)
        if other is not row:
            one, two = str(other.plan), str(row.plan)
            said = f"both are the plan '{one}'" if one == two else f"'{two}' draws the same as '{one}'"
            raise InputError(f"rows '{other.name}' and '{row.name}' are alike: {said}; leave one out")
        if row.name in names:
            raise InputError(f"two rows have the name '{row.name}'; give each its own")
        names.add(row.name)


Entries = Mapping[str, Any]


def _lines(source: str, text: str) -> Iterable[tuple[str, Entries]]:
    passed = script_settings(source).split()
    for number, line in enumerate(text.splitlines(), start=1):
        plan = line.partition("#")[0].strip()
        if re.match(r"\d+([\s,\[{]|$)|[\[{]", plan):  # a preset has settings of its own
            stated = {word.partition("=")[0] for word in re.split(r"[\s,]+", plan)}
            plan = " ".join([plan, *(each for each in passed if each.partition("=")[0] not in stated)])
        if plan:
            yield f"line {number}", {"name": plan if plan in PRESETS else "", "plan": plan}


def _csv_rows(source: str, text: str) -> Iterable[tuple[str, Entries]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey="", strict=True)
    try:
        _check_columns(source, reader.fieldnames or ())
        for entries in reader:
            if "" in entries:
                raise InputError(
                    f"--plans {source}, line {reader.line_num}: it has more cells than the header has columns; "
                    f'write intervals in quotes, "[3,2,0.06,0.30]"'
                )
            yield f"line {reader.line_num}", entries
    except csv.Error as error:
        raise InputError(f"--plans {source}, line {reader.line_num}: not a line of a CSV file ({error})") from error


def _toml_rows(source: str, text: str) -> Iterable[tuple[str, Entries]]:
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"--plans {source} is not TOML: {error}") from error
    tables = content.get("row")
    if content.keys() != {"row"} or not (isinstance(tables, list) and all(isinstance(row, dict) for row in tables)):
        raise InputError(f'--plans {source}: it must hold tables [[row]] and nothing else, with plan = "18" in each')
    for number, entries in enumerate(tables, start=1):
        _check_columns(source, entries)
        yield f"row {number}", {key: value if isinstance(value, str) else repr(value) for key, value in entries.items()}


def _check_columns(source: str, columns: Collection[str]) -> None:
    for column in columns:
        if column not in COLUMNS:
            raise InputError(f"--plans {source}: unknown column '{shorten(column)}'; allowed: {', '.join(COLUMNS)}")
    if twice := [column for column, count in Counter([*columns]).items() if count > 1]:
        raise InputError(f"--plans {source} has the column {twice[0]} twice; keep one")


def _read(place: str, entries: Entries) -> NamedPlan:
    """Reads a row of any of the files. An empty cell is one that is not there; a line break in one is a space."""
    given = {key: " ".join(value.split()) for key, value in entries.items() if value and value.strip()}
    if ("plan" in given) == ("steps" in given):
        raise InputError(f"--plans {place}: give either plan, or steps with intervals")
    base = given.get("plan") or f"{given['steps']} {given.get('intervals', '')}"
    try:
        plan = Plan.parse(base).set(*(f"{key}={given[key]}" for key in SETTINGS if key in given))
        published, nfe = (_number(key, given[key]) if key in given else None for key in ("fid_paper", "nfe"))
    except InputError as error:
        raise InputError(f"--plans {place}: {error}") from None
    return replace(NamedPlan.of(plan, given.get("name", ""), given.get("family", ""), published), nfe=nfe)


def _number(column: str, text: str) -> float:
    with suppress(ValueError):
        if isfinite(number := float(text)):
            return number
    raise InputError(f"{column} is '{shorten(text)}', which is no finite number")
