"""`--dry-run`: what it says is near the truth, and it leaves nothing behind."""

import json
from pathlib import Path

import pytest

from restart_sampling.cli.dry_run import print_estimate
from restart_sampling.cli.options import days_note, describe_seconds
from restart_sampling.generation.drawing import NetDrawing
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
