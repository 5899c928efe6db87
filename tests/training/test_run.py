"""A run in one process: when it reports and saves, and how it leaves cuDNN."""

import json
import signal
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from matplotlib.figure import Figure

from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.models.read_checkpoint import read_checkpoint
from restart_sampling.training import run as run_module
from restart_sampling.training.model_file import write_model
from restart_sampling.training.run import Run, _interrupts, resume
from restart_sampling.training.run_folder import RunFolder
from restart_sampling.training.trainer import Trainer


@pytest.fixture
def settings(settings):
    """20 steps of it."""
    return replace(settings, images=640)


@pytest.fixture
def run(settings, data, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.check(settings.run())
    return Run(Trainer(settings, data, Ranks(0, 1, torch.device("cpu"))), "pictures", (), folder)


def test_it_trains_with_cudnn(run, monkeypatch):
    seen = []
    step = Trainer.step

    def spy(self, progress):
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark))
        step(self, progress)

    before = torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark
    monkeypatch.setattr(Trainer, "step", spy)
    run.train(3600, lambda report: None)
    assert seen == [(True, True)] * 20
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark) == before


def test_the_curve_of_the_loss_takes_no_lock_that_a_kill_could_leave(run, monkeypatch):
    """The folder is the run's own."""
    there = []
    savefig = Figure.savefig

    def spy(figure, path, **options):
        savefig(figure, path, **options)
        there.extend(each.name.replace(path.name, "PNG") for each in path.parent.glob(".*.partial"))

    monkeypatch.setattr(Figure, "savefig", spy)
    run.train(3600, lambda report: None)
    assert there == ["PNG"]


def test_it_reports_its_first_step_and_its_end_also_without_saves_between(run):
    reports, there = [], []

    def report(how):
        reports.append(how)
        there.append(run.folder.model.exists())

    run.train(3600, report, lambda: there.append(run.folder.model.exists()))
    assert [reports[0].images, reports[-1].images] == [32, 640]
    assert [each.saving for each in reports[:-1]] == there[:-2] == [False] * len(reports[:-1])
    assert (reports[-1].saving, there[-2:]) == (True, [False, True])
    assert reports[0].loss == run.history[0]["loss"]
    assert run.folder.model.exists()
    (picture,) = run.folder.path.glob("samples-*.png")
    assert picture.name == "samples-640.png"
    content = picture.read_bytes()
    picture.unlink()  # as where it was ended between its last state and its pictures
    run.train(3600, reports.append)
    assert picture.read_bytes() == content


def test_each_report_has_the_mean_loss_since_the_one_before(run, monkeypatch):
    monkeypatch.setattr(run_module, "REPORT_SECONDS", 0.0)
    reports = []
    run.train(3600, reports.append)
    assert [report.loss for report in reports] == [line["loss"] for line in run.history]
    assert [report.images for report in reports] == [line["images"] for line in run.history]


@pytest.mark.parametrize("picture", ["draw_samples", "plot_loss"])
def test_a_picture_that_fails_costs_neither_the_state_nor_the_run(run, settings, data, monkeypatch, picture):
    def fail(*_):
        assert run.folder.load_state(torch.device("cpu"))["trainer"]["steps"] == run.trainer.steps
        assert run.folder.model.exists()
        raise RuntimeError("no room for it\nand more")

    monkeypatch.setattr(run_module, picture, fail)
    with pytest.warns(
        UserWarning, match=r"^the run goes on without a picture in .*run \(RuntimeError: no room for it\)$"
    ):
        run.train(0, lambda report: None)
    again = Run(Trainer(settings, data, run.ranks), "pictures", (), run.folder)
    assert again.progress.finished
    assert again.history == run.history
    assert run.history[-1]["images"] == 640


def test_the_state_is_never_ahead_of_the_model_and_the_losses(run, monkeypatch):
    def stop(*_):
        assert run.folder.model.exists()
        assert (run.folder.path / "loss.jsonl").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_state", stop)
    with pytest.raises(KeyboardInterrupt):
        run.train(0, lambda report: None)


def test_an_interruption_saves_first_and_the_same_run_goes_on(run, settings, data):
    """Ctrl-C, twice as under torchrun, at the first report: the round is ended, and what is saved is that state."""

    def interrupt(report):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run.train(1e9, interrupt)
    assert signal.getsignal(signal.SIGINT) is before
    state = run.folder.load_state(torch.device("cpu"))
    assert state["trainer"]["steps"] == run.trainer.steps == run.progress.steps > 0
    again = Run(Trainer(settings, data, run.ranks), "data", (), run.folder)
    assert again.trainer.steps == run.trainer.steps
    assert not [*run.folder.path.glob("*.png")]


@pytest.mark.parametrize("error", [MemoryError, torch.OutOfMemoryError])
def test_a_state_for_which_there_is_no_memory_is_not_called_damaged(error, run, settings, data, monkeypatch):
    run._save(pictures=False)
    again = Trainer(settings, data, run.ranks)
    for place in ("run_folder.load_tensors", "trainer.Trainer.load_state"):
        with monkeypatch.context() as patched:
            patched.setattr(f"restart_sampling.training.{place}", MagicMock(side_effect=error))
            with pytest.raises(InputError, match=r"^training with --batch 32 and --channels 8 does not fit in memory"):
                resume(again, run.folder)


def test_a_second_interruption_after_a_while_ends_at_once(run, monkeypatch):
    monkeypatch.setattr("restart_sampling.training.run.PATIENCE", -1.0)
    with _interrupts() as times:
        signal.raise_signal(signal.SIGINT)
        assert len(times) == 1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_a_finished_run_is_extended(run, settings, data):
    run.train(1e9, lambda report: None)
    longer = replace(settings, images=2 * settings.images)
    run.folder.check(longer.run())
    more = Run(Trainer(longer, data, run.ranks), "data", (), RunFolder(run.folder.path))
    assert (more.trainer.images, more.progress.finished) == (settings.images, False)
    more.train(1e9, lambda report: None)
    assert more.trainer.images == longer.images
    written = json.loads((run.folder.path / "run.json").read_text())
    assert (written["run"]["images"], written["extended_from"]) == (longer.images, [settings.images])
    told = read_checkpoint(run.folder.model).metadata["training"]
    assert f"in a run of {longer.images} images, extended from {settings.images}" in told
    with pytest.raises(InputError, match=f"with images {longer.images}, not {settings.images}"):
        run.folder.check(settings.run())


def test_weights_beyond_float16_stay_as_they_are_in_the_model_file(run, settings, data, tmp_path):
    model = run.trainer.ema.model
    weight = model.model.map_layer0.weight
    weight.data[0, 0] = 1e5  # which is inf in float16
    write_model(model, settings, 32, "pictures", (), tmp_path / "model.safetensors")
    written = read_checkpoint(tmp_path / "model.safetensors").state
    kinds = {name: tensor.dtype for name, tensor in written.items()}
    assert kinds.pop("model.map_layer0.weight") == torch.float32
    assert {*kinds.values()} == {torch.float16}
    assert torch.equal(written["model.map_layer0.weight"], weight)


def test_a_state_that_is_not_of_one_run_is_refused(run, settings, data):
    run.train(1e9, lambda report: None)
    state = run.folder.load_state(torch.device("cpu"))
    trainer, history = state["trainer"], state["history"]
    for damage in (
        {"trainer": {}},
        {"trainer": {**trainer, "network": {}}},
        {"trainer": {**trainer, "ema": {}}},
        {"trainer": {**trainer, "optimizer": {"state": {}, "param_groups": []}}},
        {"trainer": {**trainer, "steps": 99}},
        {"trainer": {**trainer, "steps": 20.0}},
        {"seconds": float("nan")},
        {"seconds": -1.0},
        {"history": tuple(history)},
        {"history": []},
        {"history": [{"images": 640}]},
        {"history": [{"images": 640, "loss": "0.5"}]},
        {"history": [{**history[-1], "images": 640.0}]},
    ):
        run.folder.save_state({**state, **damage})
        with pytest.raises(InputError, match=r"state.pt is damaged \(.*\); remove it to begin the run anew"):
            resume(Trainer(settings, data, run.ranks), run.folder)


def test_processes_that_would_train_on_other_images_or_from_another_state_are_refused(run, settings, data, monkeypatch):
    """On two machines the same path may lead to two folders: each process sees nothing wrong with its own."""

    run.train(1e9, lambda report: None)
    longer, differs = replace(settings, images=2 * settings.images, data_sha256="ab"), {}
    monkeypatch.setattr(Ranks, "gather", lambda self, own: [own, ({**own[0], **differs},)])
    for differs, said in (
        ({}, ""),
        ({"data_sha256": "cd"}, "data_sha256 cd, and rank 0 has ab"),
        ({"steps_so_far": 0}, "steps_so_far 0, and rank 0 has 20"),
        ({"seconds_so_far": 0.0}, "seconds_so_far 0.0, and rank 0 has "),
    ):
        refused = pytest.raises(InputError, match=f"^rank 1 of this run has {said}") if differs else nullcontext()
        with refused:
            resume(Trainer(longer, data, run.ranks), run.folder)
