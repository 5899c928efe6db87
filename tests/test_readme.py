"""The front door: short, true, and its examples run."""

import json
import re
from pathlib import Path

import pytest

from restart_sampling.evaluation.metrics import paired_difference

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
MEASURED = ROOT / "benchmarks" / "results" / "cifar10-small-training" / "results.jsonl"
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_it_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("example", EXAMPLES)
def test_python_examples_run(example, capsys):
    exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_there_are_five_short_examples_of_nets():
    assert len(EXAMPLES) == 5
    assert all(len([line for line in example.splitlines() if line]) < 10 for example in EXAMPLES)


def test_the_table_holds_what_was_measured():
    measured = {line["plan"]: line for line in map(json.loads, MEASURED.read_text().splitlines())}
    rows = re.findall(r"^\| `(.+?)` \| .+? \| (\d+) \| (.+?) \| (.*?) ?\|$", README, re.MULTILINE)
    assert len(rows) > 4
    for plan, nfe, distance, difference in rows:
        line = measured[plan]
        assert int(nfe) == line["nfe"]
        assert distance == f"{line['frechet_distance']:.3f} +- {line['frechet_distance_error']:.3f}"
        if plan != "22":
            to_ode, error = paired_difference(line, measured["22"])
            assert difference == f"{to_ode:+.3f} +- {error:.3f}"
