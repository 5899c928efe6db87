"""Progress moves with each evaluation of the network, and costs nothing that can be measured."""

import re

import pytest
import torch

from restart_sampling.base.ranks import Ranks
from restart_sampling.cli import progress
from restart_sampling.cli.progress import ProgressBar
from restart_sampling.comparison.run import own_batches
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.models.from_network import from_edm


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves, for rich's too."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock.monotonic)
    return clock


def tiny_drawing(batch=4):
    return NetDrawing(from_edm(lambda x, sigma: x * 0.5, 0.002, 80), "3 [2,1,0.5,3]", batch=batch, shape=(3, 4, 4))


def test_each_evaluation_is_told_when_it_is_launched_and_all_make_the_images():
    told = []
    batches = tiny_drawing().draw(range(6), told.append)
    assert told == []
    next(batches)
    assert told == pytest.approx([4 / 7] * 7)
    assert len(list(batches)) == 1
    assert sum(told) == pytest.approx(6)


@pytest.mark.parametrize("done", [frozenset(), frozenset(range(8))])
def test_a_process_speaks_for_all(done):
    """The first of three has a third of the blocks and is told of all that is missing."""
    told = []
    ranks = Ranks(0, 3, torch.device("cpu"))
    for _ in own_batches(tiny_drawing(), range(36), ranks, done, told.append):
        pass
    assert sum(told) == pytest.approx(36 - len(done))


def test_what_a_compiler_took_before_the_first_evaluation_is_not_in_the_time_left(clock, capsys):
    with ProgressBar("images", 1000) as advance:
        advance(0)  # nothing was there
        clock.now += 40
        for _ in range(20):
            advance(10)
            clock.now += 2
    assert capsys.readouterr().err.splitlines() == [
        "images: 10 of 1000",
        "images: 160 of 1000, 5.0 a second, 2 min 48 s left",
    ]


def test_a_log_has_rate_and_time_left_from_the_first_evaluations(clock, capsys):
    with ProgressBar("images", 64) as advance:
        advance(24)  # these were there
        for _ in range(100):
            clock.now += 1
            advance(0.25)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "images: 25 of 64, 4.0 s each, 2 min 35 s left"
    assert [int(re.match(r"images: (\d+) of 64", line)[1]) for line in lines] == [25, 32, 40, 47]


def test_rates_above_one_are_by_the_second(clock, capsys):
    with ProgressBar("images", 1000) as advance:
        for _ in range(60):
            clock.now += 0.125
            advance(0.25)
    assert capsys.readouterr().err == "images: 10 of 1000, 2.0 a second, 8 min 15 s left\n"


def test_a_run_of_days_is_said_once(clock, capsys):
    with ProgressBar("images", 50_000) as advance:
        for _ in range(40):
            clock.now += 1
            advance(0.1)
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith("note: this takes about 5 d 18 h")


def test_a_process_that_is_not_the_first_says_nothing(clock, capsys):
    with ProgressBar("images", 50_000, shown=False) as advance:
        for _ in range(40):
            clock.now += 1
            advance(0.1)
    assert capsys.readouterr().err == ""
