"""A run in one process: when it reports and saves, and how it leaves cuDNN."""

import pytest
import torch

from restart_sampling.base.ranks import Ranks
from restart_sampling.training import run as run_module
from restart_sampling.training.run import Run
from restart_sampling.training.run_folder import RunFolder
from restart_sampling.training.trainer import Trainer


@pytest.fixture
def run(settings, data, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.check(settings.run())
    return Run(settings, data, "pictures", (), folder, Ranks(0, 1, torch.device("cpu")))


def test_it_trains_with_cudnn(run, monkeypatch):
    seen = []
    step = Trainer.step

    def spy(self, progress):
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark))
        step(self, progress)

    before = torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark
    monkeypatch.setattr(Trainer, "step", spy)
    run.train(3600, lambda report: None)
    assert seen == [(True, True)] * 100
    assert (torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark) == before


def test_it_reports_its_first_step_and_its_end_also_without_saves_between(run):
    reports = []
    run.train(3600, reports.append)
    assert [reports[0].images, reports[-1].images] == [32, 3200]
    assert reports[0].loss == run.history[0]["loss"]
    assert run.folder.model.exists()
    assert [path.name for path in run.folder.path.glob("samples-*.png")] == ["samples-3200.png"]


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
    again = Run(settings, data, "pictures", (), run.folder, Ranks(0, 1, torch.device("cpu")))
    assert again.progress.finished
    assert again.history == run.history
    assert run.history[-1]["images"] == 3200


def test_the_state_is_never_ahead_of_the_model_and_the_losses(run, monkeypatch):
    def stop(*_):
        assert run.folder.model.exists()
        assert (run.folder.path / "loss.jsonl").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(RunFolder, "save_state", stop)
    with pytest.raises(KeyboardInterrupt):
        run.train(0, lambda report: None)
