"""Rows of a results file as a table for a paper: Markdown, CSV or LaTeX."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from restart_sampling.base.errors import InputError, printable
from restart_sampling.base.numbers import is_number
from restart_sampling.comparison.labels import labelled
from restart_sampling.evaluation.results_file import SCORES, TITLES, Result
from restart_sampling.evaluation.values import Value, value_of

_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    ">": "$>$",
}
_MARKDOWN = {"|": r"\|", "<": "&lt;"}


Cell = str | int | Value | None
Table = Mapping[str, Sequence[Cell]]
"""Titles, and the cells below them; None is an empty one."""


def results_table(results: Sequence[Result]) -> dict[str, list[Cell]]:
    """Makes a table of the rows of a results file, with those columns that say something.

    Raises:
        InputError: there are no rows, or a value is no number.
    """
    if not results:
        raise InputError("the results file has no rows; make some with 'restart-sampling evaluate' or 'sweep'")
    names: list[Cell] = [_name(result) for result in results]
    table: dict[str, list[Cell]] = {
        "row": names,
        "plan": [result.get("plan") for result in results],
        "guidance": [_number(result, "guidance") for result in results],
        "NFE": [_number(result, "nfe") for result in results],
        "images": [_number(result, "images") for result in results],
    }
    titles = TITLES | {f"{name}_score": title for name, title in SCORES.items()}
    for key, title in titles.items():
        table[title] = [_value(result, key) for result in results]
    table["published FID"] = [_number(result, "published_fid") for result in results]
    if table["plan"] == names:
        del table["plan"]
    return {title: cells for title, cells in table.items() if any(cell is not None for cell in cells)}


def write_markdown(table: Table) -> str:
    """Writes a table as GitHub's Markdown has it: numbers on the right, `0.518 ± 0.004`, long plans below it."""
    table, legend = _narrow(table)
    numeric = [not any(isinstance(cell, str) for cell in cells) for cells in table.values()]
    rule = ["---:" if each else "---" for each in numeric]
    below = "".join(f"- {label}: `{printable(text)}`\n" for label, text in legend.items())
    return (
        _lines([list(table), rule, *_rows(table, _replacing(_MARKDOWN))], "| ", " | ", " |")
        + "\n" * bool(below)
        + below
    )


def write_latex(table: Table) -> str:
    """Writes a table in LaTeX's `tabular`, with the rules of booktabs; long plans are in comments below it."""
    table, legend = _narrow(table)
    text = _replacing(_LATEX)
    columns = "".join("l" if any(isinstance(cell, str) for cell in cells) else "r" for cells in table.values())
    head = _lines([[text(title) for title in table]], "", " & ", r" \\")
    body = _lines(_rows(table, text), "", " & ", r" \\")
    below = "".join(f"% {label}: {printable(text)}\n" for label, text in legend.items())
    rules = f"\\toprule\n{head}\\midrule\n{body}\\bottomrule\n"
    return f"\\begin{{tabular}}{{{columns}}}\n{rules}\\end{{tabular}}\n{below}"


def write_csv(table: Table) -> str:
    """Writes a table as CSV with all digits; errors have columns of their own."""
    columns: dict[str, list[Any]] = {}
    for title, cells in table.items():
        columns[title] = [cell.value if isinstance(cell, Value) else cell for cell in cells]
        errors = [cell.error if isinstance(cell, Value) else None for cell in cells]
        if any(error is not None for error in errors):
            columns[f"error of {title}"] = errors
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([list(columns), *zip(*columns.values(), strict=True)])
    return file.getvalue()


FORMATS: Mapping[str, Callable[[Table], str]] = {"md": write_markdown, "csv": write_csv, "latex": write_latex}
"""By name."""


def _narrow(table: Table) -> tuple[Table, dict[str, str]]:
    """Puts labels for long names and plans; returns what these stand for too."""
    names = [str(name) for name in table["row"]]
    plans = ["" if plan is None else str(plan) for plan in table.get("plan", names)]
    columns, legend = labelled(names, plans)
    return {**columns, **{title: cells for title, cells in table.items() if title not in ("row", "plan")}}, legend


def _rows(table: Table, text: Callable[[str], str]) -> Iterable[list[str]]:
    for cells in zip(*table.values(), strict=True):
        yield [text(_written(cell)) for cell in cells]


def _written(cell: Cell) -> str:
    if isinstance(cell, Value):
        return cell.written(between=" ± ")
    return "" if cell is None else printable(str(cell))


def _lines(rows: Iterable[Sequence[str]], start: str, between: str, end: str) -> str:
    return "".join(f"{start}{between.join(row)}{end}\n" for row in rows)


def _replacing(table: Mapping[str, str]) -> Callable[[str], str]:
    codes = {ord(character): written for character, written in table.items()}
    return lambda text: text.translate(codes)


def _name(result: Result) -> str:
    return str(result.get("name") or result.get("plan") or result["run"].get("images") or "")


def _number(result: Result, key: str) -> Any:
    value = result.get(key)
    if not (value is None or is_number(value)):
        raise InputError(f"row '{_name(result)}' has {key} {value!r}, which is no number; correct the file")
    return value


def _value(result: Result, key: str) -> Value | None:
    for each in (key, f"{key}_error", f"{key}_std", "frechet_distance_error"):
        _number(result, each)
    return value_of(result, key)
