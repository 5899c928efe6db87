"""`--dry-run`: what it says is near the truth, and it leaves nothing behind."""

import json
import shutil
from pathlib import Path

import pytest

from restart_sampling.cli.dry_run import print_estimate
from restart_sampling.cli.progress import days_note, describe_seconds
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.generation.timing import seconds_per_image
from restart_sampling.models.from_network import from_edm
from sweeps import SWEEP, plans_file

MODEL = ("--model", "tiny.safetensors")


def left():
    return {str(path) for path in Path().rglob("*")}


@pytest.mark.parametrize(
    ("words", "images"),
    [
        (("generate", *MODEL, "--plan", "2", "--seeds", "0-9", "--out", "a/b/images"), 10),
        (("generate", *MODEL, "--plan", "2", "--seeds", "0-9", "--out", "a/images.zip"), 10),
        (("evaluate", *MODEL, "--plan", "2", "--plan", "3", "--seeds", "0-19", "--results", "a/results.jsonl"), 40),
        ((*SWEEP, "--plans", "plans.txt"), 5 * 24),
    ],
)
def test_a_dry_run_estimates_and_leaves_nothing(words, images, place, run):
    plans_file()
    measures = ("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector")
    before = left()
    code, out, err = run(*words, *(measures if words[0] == "evaluate" else ()), "--dry-run", "--json")
    assert code == 0, err
    said = json.loads(out)
    assert (said["dry_run"], said["images"]) == (True, images)
    assert 0 < said["seconds"] < 60
    assert 0 < said["bytes"] < 1e6
    assert "nothing was drawn or written" in err
    assert left() == before


def test_a_dry_run_of_a_data_set_of_training_and_of_a_search(place, run):
    """The time, the disk that the run then takes (of a search, which takes long, without the run), and nothing left."""
    run("generate", *MODEL, "--plan", "2", "--seeds", "0-39", "--out", "images")
    data = ("dataset", "images", "a/data.zip")
    train = ("train", "data.zip", "--out", "a/run", "--parametrization", "edm", "--batch", "4")
    train = (*train, "--channels", "8", "--channel-mult", "1", "--blocks", "1", "--images")
    tune = ("tune", *MODEL, "--nfe", "5", "--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector")
    tune = (*tune, "--images", "20", "--race-images", "80", "--confirm-images", "20", "--out", "a/tuned")
    run("dataset", "images", "data.zip")
    before = left()
    for words, written in (
        (data, "a/data.zip"),
        ((*train, "24"), "a/run/*"),
        ((*tune, "--minutes", "30", "--map"), None),
    ):
        code, out, err = run(*words, "--dry-run", "--json")
        assert code == 0, err
        said = json.loads(out)
        assert (1800 if words[0] == "tune" else 0) < said["seconds"] < 3000
        assert "time" in err
        assert "disk" in err
        assert left() == before
        if written is None:
            continue
        code, _, err = run(*words)
        assert code == 0, err
        files = [path for path in Path().glob(written) if path.is_file()]
        assert files
        assert sum(path.stat().st_size for path in files) <= said["bytes"]
        shutil.rmtree("a")
    run(*train, "12")
    assert json.loads(run(*train, "24", "--dry-run", "--json")[1])["images"] == 12  # what is left of a longer run


def test_dry_runs_refuse_what_the_runs_refuse(place, run):
    run("generate", *MODEL, "--plan", "2", "--seeds", "0-3", "--out", "images")
    code, _, err = run("dataset", "images", "images", "--dry-run")
    assert (code, "images exists; remove it" in err) == (2, True)
    code, _, err = run("dataset", "images", "images/000000/000000.png/a.zip", "--dry-run")
    assert code == 2
    train = ("train", "images", "--parametrization", "edm", "--batch", "4", "--images", "8", "--dry-run")
    code, _, err = run(*train, "--out", "images")
    assert (code, "images exists and is not a run of train" in err) == (2, True)
    tune = ("tune", *MODEL, "--nfe", "5", "--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector")
    code, _, err = run(*tune, "--out", "tuned", "--minutes", "0.0001", "--dry-run")
    assert (code, "no time is left for a search" in err, "or a GPU" in err) == (2, True, True)
    code, _, err = run(*tune, "--out", "images", "--dry-run")
    assert (code, "images holds something else than a run of tune" in err) == (2, True)
    code, _, err = run(*tune[:5], "--without-reference", "--out", "tuned", "--dry-run")
    assert (code, "--dry-run is for a search" in err) == (2, True)


def test_a_dry_run_says_how_many_images_are_drawn_at_a_time(place, run):
    words = ("generate", *MODEL, "--plan", "2", "--seeds", "0-99", "--out", "images")
    assert "16 at a time" in run(*words, "--dry-run")[2]
    assert "16 at a time" in run(*words)[2]


def test_images_that_are_there_are_not_counted(place, run):
    words = ("generate", *MODEL, "--plan", "2", "--batch", "4", "--out", "images", "--json")
    run(*words, "--seeds", "0-7")
    assert json.loads(run(*words, "--seeds", "0-11", "--dry-run")[1])["images"] == 4
    assert json.loads(run(*words, "--seeds", "0-7", "--dry-run")[1])["images"] == 0
    assert sum(path.stat().st_size for path in Path("images").rglob("*.png")) < 8 * (3 * 8 * 8 + 8 + 300)


def test_a_dry_run_refuses_what_the_run_refuses(place, run):
    run("generate", *MODEL, "--plan", "2", "--seeds", "0", "--out", "images")
    code, _, err = run("generate", *MODEL, "--plan", "3", "--seeds", "0", "--out", "images", "--dry-run")
    assert code == 2
    assert "images holds another run" in err
    code, _, err = run("evaluate", "images", "--reference", "ref.npz", "--dry-run")
    assert code == 2
    assert "--dry-run is for --model" in err


def test_the_time_is_that_of_the_evaluations_after_the_first(monkeypatch):
    now = 0.0

    def denoise(x, sigma):
        nonlocal now
        now += 5.0 if now == 0 else 0.25  # the first one compiles
        return x

    monkeypatch.setattr("restart_sampling.generation.timing.time.perf_counter", lambda: now)
    drawing = NetDrawing(from_edm(denoise, 0.002, 80), "20", batch=8, shape=(3, 4, 4))
    assert seconds_per_image(drawing, range(64)) == pytest.approx(39 * 0.25 / 8)
    assert now < 6  # and the batch was given up


def test_what_takes_days_or_has_no_room_is_said(tmp_path, capsys):
    print_estimate(tmp_path / "out", {"images": 50_000, "seconds": 200_000.0, "bytes": 10**18}, as_json=False)
    err = capsys.readouterr().err
    assert "about 2 d 7 h for 50000 images" in err
    assert "note: this takes about 2 d 7 h" in err
    assert "too little room" in err
    assert days_note(86_000) == ""
    assert [describe_seconds(each) for each in (0.2, 65, 3700, 90_000)] == ["0 s", "1 min 5 s", "1 h 1 min", "1 d 1 h"]


def test_a_misspelt_model_is_named_before_its_plan_is_missed(place, run):
    code, _, err = run("generate", "--model", "cifar10-smal", "--seeds", "0", "--out", "images")
    assert code == 2
    assert "nearest: cifar10-small" in err
