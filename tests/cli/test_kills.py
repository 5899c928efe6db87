"""Every command that writes is ended at any moment, by any signal, and crowds of runs meet on one output."""

import os
import random

import pytest
from kills import COMMANDS, RANKED, SIGNALS, SLOW, WITH_DIFFUSERS, Case, Crowd, make_files, make_pipeline

pytestmark = pytest.mark.slow

MOMENTS = int(os.environ.get("KILLS", "20"))
PAIRS = int(os.environ.get("PAIRS", "100"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    make_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.parametrize(("name", "ranks"), [*((name, 1) for name in COMMANDS), *((name, 2) for name in RANKED)])
def test_an_ended_run_goes_on_to_the_same_bytes(name, ranks, number, place):
    if name in WITH_DIFFUSERS:
        pytest.importorskip("diffusers")
        make_pipeline(place)
    case = Case(name, ranks)
    for moment in case.ended(number, MOMENTS):
        assert moment.fault is None, moment


@pytest.mark.parametrize("out", ["out", "out.zip"])
@pytest.mark.parametrize("other", [SLOW, "20"], ids=["equal", "different"])
def test_a_crowd_on_one_output_never_mixes(out, other, place):
    crowd, chance = Crowd(out, other), random.Random(out + other)
    outcomes = [crowd.meet(chance.choice((0, 0, 0.02, 0.2, 1))) for _ in range(PAIRS // 2)]
    print({codes: outcomes.count(codes) for codes in set(outcomes)})
