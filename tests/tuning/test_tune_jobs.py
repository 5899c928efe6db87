"""The jobs of benchmarks/tune.py, each of which is a command that takes minutes of a GPU."""

from importlib import import_module
from pathlib import Path

import click

from restart_sampling.cli import cli

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_every_job_is_a_command_that_is_taken(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    tune = import_module("tune")
    measure = ["--reference", "train.npz", "--detector", "own.pt", "--trust-detector", "--batch", "250"]
    confirm = ["--confirm-detector", "other.pt", "--confirm-reference", "train-other.npz"]
    jobs = tune.jobs(tune.Given(tmp_path, measure, measure, confirm, None, each=4, long=10))
    assert len({job.name for job in jobs}) == len(jobs) > 30
    for job in jobs:
        name, *words = job.words()
        command = cli.get_command(click.Context(cli), name)
        command.make_context(name, [*words])  # which it takes apart
        if job.name.endswith(("-long", "-random", "-churn")):  # which are compared
            assert (words[words.index("--minutes") + 1], words[words.index("--images") + 1]) == ("10", "1000")
