"""Sweeps: one line a row, kept through a kill, with the calls of the model counted."""

import json
import os
import shutil
import signal
from glob import glob
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from arguments import instead
from copies import TORCHRUN, start, wait_for, write_slow
from restart_sampling.base.numbers import with_error
from restart_sampling.comparison.published import NOTES
from restart_sampling.evaluation.results_file import read_results
from restart_sampling.generation.generate import generate
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.read_checkpoint import load_model, read_checkpoint
from restart_sampling.models.write_checkpoint import write_safetensors
from restart_sampling.sampling.solvers.single_step import Heun
from sweeps import PLANS, SWEEP, lines, plans_file
from tiny_model import tiny_model_file

TIMES = {"seconds", "time"}
OUT = Path("out")
RESULTS = OUT / "results.jsonl"


def untimed(results):
    return [{key: value for key, value in result.items() if key not in TIMES} for result in results]


def test_settings_that_do_nothing_are_said_and_rows_that_draw_the_same_refused(place, run):
    said = "note: the plan '2 gamma=0.1 s_noise=2' draws the same without gamma=0.1 or s_noise=2"
    model = ("--model", "tiny.safetensors", "--dry-run")
    file = plans_file("2 gamma=0.1 s_noise=2", "3")
    measure = ("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "any")
    for words in (
        ("generate", *model, "--plan", "2 gamma=0.1 s_noise=2", "--seeds", "0", "--out", "drawn"),
        ("evaluate", *model, *measure, "--plan", "2 gamma=0.1 s_noise=2", "--seeds", "0-19"),
        ("sweep", *model, *measure, "--plans", file, "--images", "20", "--out", "compared"),
    ):
        code, _, err = run(*words)
        assert (code, said in err) == (0, True), err
    code, _, err = run(*words, "--plans", "2")
    assert (code, "are alike: '2' draws the same as '2 gamma=0.1 s_noise=2'; leave one out" in err) == (2, True)
    Path("stated.csv").write_text("plan,nfe\n2,3\n")
    words = instead(words, "--plans", "stated.csv")
    assert [run(*words)[0], run(*words, "--set", "steps=3")[0]] == [0, 0]


def kept_images():
    return {path.name: path.read_bytes() for path in (OUT / "samples").iterdir()}


def test_a_sweep(place, run):
    code, out, err = run(*SWEEP, "--plans", plans_file())
    assert code == 0, err
    results = lines()
    assert [result["plan"] for result in results] == list(PLANS)
    for result in results:
        assert result["nfe"] == result["nfe_counted"] > 0
        assert result["images"] == 24
        assert result["run"]["seeds"] == "0-23"
        assert len(result["frechet_distance_blocks"]) == 2
        assert len(result["frechet_distance_without_group"]) == 12
    assert [result["nfe"] for result in results] == [3, 5, 3, 7, 11]
    table = out.splitlines()
    assert len(table) == 1 + len(PLANS)
    for line, result in zip(table[1:], results, strict=True):
        assert with_error(result["frechet_distance"], result["frechet_distance_error"]) in line
    differences = np.subtract(*(results[i]["frechet_distance_without_group"] for i in (1, 0))).reshape(2, 6)
    error = (5 / 6 * sum(((each - each.mean()) ** 2).sum() for each in differences)) ** 0.5 / 2
    difference = results[1]["frechet_distance"] - results[0]["frechet_distance"]
    assert with_error(difference, error, sign="+") in table[2]
    assert "about" in err
    assert "left" in err
    assert not (OUT / "results.jsonl.partial").exists()


def test_one_block(place, run):
    words = ("--blocks", "1", "--images", "20", "--metrics", "fd,fd-infinity")
    code, out, _ = run(*instead(SWEEP, "--plans", plans_file("2", "3"), *words))
    assert code == 0
    assert "minimum" not in out
    assert "at infinity" in out.splitlines()[0]
    value, error = (lines()[1][f"frechet_distance_infinity{each}"] for each in ("", "_error"))
    assert with_error(value, error) in out.splitlines()[2]
    assert len(lines()[0]["frechet_distance_without_group"]) == 10


def test_the_images_that_are_kept_are_those_of_the_first_seeds(place, run):
    assert run(*SWEEP, "--plans", plans_file("3"), "--first-seed", "40")[0] == 0
    assert lines()[0]["run"]["seeds"] == "40-63"
    kept = np.array(Image.open(OUT / lines()[0]["samples"]))
    batch = next(generate(load_model("tiny.safetensors"), "3", range(40, 44), batch_size=4))
    assert np.array_equal(kept, np.concatenate(list(batch.images.numpy().transpose(0, 2, 3, 1)), axis=1))


def test_an_extended_sweep_does_what_is_missing(place, run):
    assert run(*SWEEP, "--plans", plans_file("2"))[0] == 0
    first = RESULTS.read_text()
    code, out, err = run(*SWEEP, "--plans", plans_file("3", "2"))
    assert code == 0
    assert "there already: 1" in err
    assert "row 1 of 2" in err
    assert "row 2 of 2" not in err
    assert RESULTS.read_text().startswith(first)
    assert len(lines()) == 2
    assert len(out.splitlines()) == 3


def test_a_killed_sweep_goes_on_and_repeats_no_finished_row(place, run):
    plans_file()
    assert run(*SWEEP, "--plans", "plans.txt")[0] == 0
    whole, images = untimed(lines()), kept_images()
    shutil.rmtree(OUT)
    write_slow("restart_sampling.evaluation.collect:Collector", "add", 0.04)
    partial = OUT / "results.jsonl.partial"
    process = start("slow.py", *SWEEP, "--plans", "plans.txt")
    earlier = set()

    def third_row_has_sums():
        sums = {*glob(str(partial / "*.pt"))}  # noqa: PTH207  it may meet a folder that is being removed
        # A line that is being written is passed over.
        if not RESULTS.exists() or len(list(read_results(RESULTS))) < 2:
            earlier.update(sums)
        return bool(sums - earlier)

    wait_for(third_row_has_sums, process)
    os.kill(int(Path("pid-0").read_text()), signal.SIGKILL)
    process.communicate(timeout=60)
    before = RESULTS.read_text()
    assert len(before.splitlines()) == 2
    code, _, err = run(*SWEEP, "--plans", "plans.txt")
    assert code == 0, err
    assert RESULTS.read_text().startswith(before)
    assert "row 2 of" not in err
    assert "row 3 of" in err
    assert untimed(lines()) == whole
    assert kept_images() == images
    assert not partial.exists()


def test_sums_that_a_kill_left_of_a_finished_row_are_removed(place, run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("restart_sampling.evaluation.partial_sums.PartialSums.remove", lambda self: None)
        assert run(*SWEEP, "--plans", plans_file("2"))[0] == 0
    assert (OUT / "results.jsonl.partial").exists()
    assert run(*SWEEP, "--plans", "plans.txt")[0] == 0
    assert not (OUT / "results.jsonl.partial").exists()


def test_a_row_that_fails_does_not_end_the_others(place, run, monkeypatch):
    """A model that goes wrong at high levels, which one plan alone visits."""
    forward = Denoiser.forward

    def broken(self, x, sigma, **more):
        return forward(self, x, sigma, **more) * torch.where(sigma > 50, float("nan"), 1.0).reshape(-1, 1, 1, 1)

    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "forward", broken)
        code, out, err = run(*SWEEP, "--plans", plans_file("2", "2 sigma_max=40", "3"), "--set", "rho=6")
    assert code == 1
    assert [result["plan"] for result in lines()] == ["2 rho=6 sigma_max=40"]
    assert out.count("failed") == 2
    assert "row '2' failed: the image of seed 0 is not finite" in err
    code, out, err = run(*SWEEP, "--plans", "plans.txt", "--set", "rho=6")
    assert code == 0, err
    assert "row 2 of" not in err
    assert len(lines()) == 3


def test_an_nfe_that_is_not_the_calls_is_an_error_of_the_row(place, run, monkeypatch):
    evaluations = Heun.evaluations
    monkeypatch.setattr(Heun, "evaluations", lambda self, move: evaluations(self, move) + 1)
    code, _, err = run(*SWEEP, "--plans", plans_file("2", "3 solver=euler"))
    assert code == 1
    assert "row '2' failed: the plan has NFE 5, but a batch took 3 calls of the model" in err
    assert [result["plan"] for result in lines()] == ["3 solver=euler"]


def test_calls_are_counted():
    class Model(Denoiser):
        calls = 0

        def forward(self, x, sigma, *more):
            Model.calls += 1
            return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    model = Model(img_resolution=8, img_channels=3, model_type="SongUNet", sigma_min=0.0, sigma_max=80.0).eval()
    drawing = NetDrawing(model, "3 [2,1,0.5,3]", batch=2)
    assert len(list(drawing.draw(range(5)))) == 3
    assert Model.calls == 3 * drawing.nfe


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "--plans is missing"),
        (("--plans", "nowhere-*"), "no such file, and no preset"),
        (("--plans", "alike.txt"), "are alike"),
        (("--plans", "plans.txt", "--plans", "plans.txt"), "are alike"),
        (("--plans", "high.txt"), "row '3 grid=90/5/1/0': level 90"),
        (("--plans", "column.csv"), "unknown column 'colour'"),
        (("--plans", "plans.txt", "--metrics", "fd,beauty"), "no metric 'beauty'"),
        (
            ("--plans", "plans.txt", "--blocks", "1"),
            "12 images in 1 block are too few for the error of a distance; give at least 20",
        ),
        (("--plans", "plans.txt", "--class", "9"), "class 9 is out of range"),
        (("--plans", "plans.txt", "--model", "nowhere"), "nowhere"),
        (("--plans", "plans.txt", "--reference", "nowhere.npz"), "nowhere.npz cannot be read"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(place, run, more, said):
    plans_file()
    plans_file("2", "3", "2 ", name="alike.txt")
    plans_file("2", "3 grid=90/5/1/0", name="high.txt")
    Path("column.csv").write_text("plan,colour\n18,red\n")
    if "high.txt" in more:  # the tiny model knows all levels
        Path("tiny.safetensors").unlink()
        limited_model(Path("tiny.safetensors"))
    code, _, err = run(*instead(SWEEP, *more))
    assert code == 2
    assert said in err
    assert err.startswith("restart-sampling: ")
    assert len(err.splitlines()) == 1
    assert not RESULTS.exists()


def limited_model(path):
    """The same network, for levels up to 80."""
    tiny_model_file(path)
    checkpoint = read_checkpoint(path)
    checkpoint.init_kwargs["sigma_max"] = 80.0
    write_safetensors(checkpoint, path, overwrite=True)


@pytest.mark.parametrize(
    ("more", "another"),
    [(("--model", "other.safetensors"), "model"), (("--blocks", "3"), "blocks"), (("--noise", "edm"), "noise")],
)
def test_a_results_file_of_something_else(place, run, more, another):
    assert run(*SWEEP, "--plans", plans_file("2"))[0] == 0
    content = RESULTS.read_text()
    limited_model(Path("other.safetensors"))
    code, _, err = run(*instead(SWEEP, "--plans", "plans.txt", *more))
    assert code == 2
    assert f"different {another}" in err
    assert len(err.splitlines()) == 1
    assert RESULTS.read_text() == content


def test_the_papers_rows_beside_ours(place, run, monkeypatch):
    monkeypatch.setattr("restart_sampling.evaluation.metrics.GROUPS", 2)
    code, out, err = run(*instead(SWEEP, "--images", "4", "--paper", "cifar10-edm"))
    assert code == 0, err
    assert "published FID" in out
    row = next(line for line in out.splitlines() if line.startswith("cifar10-edm-43 "))
    assert "1.90" in row
    for note in NOTES["cifar10-edm"]:
        assert note in err
    assert lines()[0]["published_fid"] == 1.97


def test_json(place, run):
    code, out, _ = run(*SWEEP, "--plans", plans_file("2", "3"), "--json")
    assert code == 0
    assert [result["nfe"] for result in json.loads(out)["results"]] == [3, 5]


@pytest.mark.slow
def test_two_processes_give_the_same_rows(place, run):
    plans_file()
    assert run(*SWEEP, "--plans", "plans.txt")[0] == 0
    whole = lines()
    shutil.rmtree(OUT)
    process = start(*TORCHRUN, "--nproc_per_node=2", "-m", "restart_sampling", *SWEEP, "--plans", "plans.txt")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    for one, two in zip(whole, lines(), strict=True):
        assert one["pixels_sha256"] == two["pixels_sha256"]
        assert one["frechet_distance"] == pytest.approx(two["frechet_distance"], rel=1e-9)
        assert two["nfe_counted"] == one["nfe"]


# The model of the second process goes wrong at high levels.
BROKEN = """
import os
from restart_sampling.cli import main
from restart_sampling.models.denoiser import Denoiser

forward = Denoiser.forward

def broken(self, x, sigma, **more):
    if os.environ["RANK"] == "1" and (sigma > 50).any():
        raise RuntimeError("out of memory\\nand more")
    return forward(self, x, sigma, **more)

Denoiser.forward = broken
main()
"""


@pytest.mark.slow
def test_a_row_that_fails_on_one_process_fails_on_all_and_the_others_go_on(place):
    plans_file("2", "2 sigma_max=40", "3")
    Path("broken.py").write_text(BROKEN)
    process = start(*TORCHRUN, "--nproc_per_node=2", "broken.py", *SWEEP, "--plans", "plans.txt")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert [result["plan"] for result in lines()] == ["2 sigma_max=40"]
    assert "row '2' failed: RuntimeError: out of memory;" in err
    assert "row '3' failed: RuntimeError: out of memory;" in err
