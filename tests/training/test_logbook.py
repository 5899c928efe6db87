"""What --log writes: event files that TensorBoard's own reader reads, and calls of a stand-in for wandb."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sweeps import SWEEP, lines, plans_file
from tiny import image_folder, pictures

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
TRAIN = (
    *("train", "images", "--out", "run", "--parametrization", "edm", "--channels", "8", "--channel-mult", "1"),
    *("--blocks", "1", "--batch", "8", "--device", "cpu"),
)


@pytest.fixture
def events():
    """Reads the scalars of a folder of event files: {name: [(step, value), ...]}, and the names of the pictures."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator").EventAccumulator

    def read(folder):
        found = accumulator(str(folder)).Reload()
        tags = found.Tags()
        return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags["scalars"]}, tags["images"]

    return read


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that keeps what it is told."""
    told = SimpleNamespace(begun=[], logged=[], finished=[])

    def init(**settings):
        told.begun.append(settings)
        return SimpleNamespace(
            log=told.logged.append,
            define_metric=lambda name, step_metric: None,
            finish=lambda exit_code: told.finished.append(exit_code),
        )

    module = SimpleNamespace(init=init, Image=lambda picture: picture.size, __spec__=object())
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def test_a_training_run_in_tensorboard_goes_on_where_it_stopped(place, run, events):
    image_folder(Path("images"), pictures(20))
    for images in (64, 128):
        code, _, err = run(*TRAIN, "--images", images, "--log", "tensorboard")
        assert code == 0, err
    history = lines(Path("run/loss.jsonl"))
    scalars, images = events("run/tensorboard")
    assert [step for step, _ in scalars["train/loss"]] == [line["images"] for line in history]
    assert [value for _, value in scalars["train/loss"]] == pytest.approx([line["loss"] for line in history])
    assert scalars["train/learning_rate"][-1][0] == 128
    assert images == ["samples"]


def test_a_sweep_in_tensorboard_is_by_family_and_nfe(place, run, events):
    code, _, err = run(*SWEEP, "--plans", plans_file("2", "3", "3 [2,1,0.5,3]"), "--log", "tensorboard")
    assert code == 0, err
    scalars, images = events("out/tensorboard")
    ode = [(line["nfe"], pytest.approx(line["frechet_distance"])) for line in lines() if "ODE" in line["family"]]
    assert scalars["frechet_distance/ODE (heun)"] == ode
    assert len(ode) == 2
    assert [step for step, _ in scalars["frechet_distance/Restart (heun)"]] == [7]
    assert len(images) == 3


def test_a_run_of_wandb_is_taken_up_by_its_name(place, run, wandb):
    image_folder(Path("images"), pictures(20))
    for images in (64, 128):
        assert run(*TRAIN, "--images", images, "--log", "wandb")[0] == 0
    first, second = wandb.begun
    assert first["id"] == second["id"]
    assert (first["resume"], first["dir"], first["project"]) == ("allow", "run", "restart-sampling")
    assert first["config"]["parametrization"] == "edm"
    losses = [each["images"] for each in wandb.logged if "train/loss" in each]
    assert losses == [line["images"] for line in lines(Path("run/loss.jsonl"))]
    assert [each["images"] for each in wandb.logged if "samples" in each] == [64, 128]
    assert wandb.finished == [0, 0]


@pytest.mark.parametrize("kind", ["tensorboard", "wandb"])
def test_what_is_missing_is_said_before_any_work(kind, place, run, monkeypatch):
    monkeypatch.setattr("restart_sampling.base.errors.find_spec", lambda name: None if name == kind else object())
    image_folder(Path("images"), pictures(20))
    for words in ((*TRAIN, "--images", "64"), (*SWEEP, "--plans", "2")):
        code, _, err = run(*words, "--log", kind)
        assert code == 2
        assert err.splitlines()[-1].endswith(f"not installed: pip install 'restart-sampling[{kind}]'")
    assert not Path("run").exists()
