"""The command as users meet it: a run killed and resumed, what it leaves, and how bad input is answered."""

import json
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import restart_sampling as rs
from arguments import instead
from copies import TORCHRUN, start, wait_for
from restart_sampling.base.errors import InputError
from restart_sampling.base.ranks import Ranks
from restart_sampling.images.image_set import read_images
from restart_sampling.models import fast

TINY = (
    "--channels",
    "8",
    "--channel-mult",
    "1,1",
    "--blocks",
    "1",
    "--batch",
    "32",
    "--lr",
    "0.01",
    "--augment",
    "0.12",
)
LENGTH = ("--images", "6400")  # 200 steps


def train(*arguments, processes=1):
    launcher = (*TORCHRUN, f"--nproc_per_node={processes}") if processes > 1 else ()
    return start(*launcher, "-m", "restart_sampling", "train", *arguments, "--device", "cpu")


def finish(process):
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out, err


def history(run_folder):
    return [json.loads(line) for line in (run_folder / "loss.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def undisturbed(folder, tmp_path_factory):
    """A run of a process of its own to its end: its folder, standard output and standard error."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    process = train(folder, "--out", out, "--parametrization", "edm", "--cond", *TINY, *LENGTH, "--json")
    return out, *finish(process)


def test_the_run_leaves_what_it_says(undisturbed, folder):
    out, stdout, stderr = undisturbed
    result = json.loads(stdout)
    assert result["images"] == 6400
    assert result["model"] == str(out / "model.safetensors")
    assert sorted(path.name for path in out.iterdir()) == [
        "loss.jsonl",
        "loss.png",
        "model.safetensors",
        "run.json",
        "samples-6400.png",
        "state.pt",
    ]
    with Image.open(out / "samples-6400.png") as samples:
        assert samples.size == (2 * (10 * 9 - 1), 2 * (6 * 9 - 1))
    assert f"{folder.name}, 500 images of 8x8, RGB, 2 classes, random flips, augmentation 0.12 falling to 0" in stderr
    assert "6400 images, loss 0." in stderr
    assert "; saving it, and drawing samples\n" in stderr


def test_the_loss_falls(undisturbed):
    """From 1, which a network that gives nothing has, to a third at most: these pictures are simple."""
    lines = history(undisturbed[0])
    assert 0.7 < lines[0]["loss"] < 1.3
    late = [line["loss"] for line in lines if line["images"] > 4800]
    assert np.mean(late) < 1 / 3
    assert lines[-1]["learning_rate"] < 1e-6
    assert [line["gradients_replaced"] for line in lines] == [0] * len(lines)


def test_the_model_is_one_of_ours(undisturbed, run, tmp_path):
    out, _, _ = undisturbed
    file = out / "model.safetensors"
    model = rs.load_model(file)
    assert (model.resolution, model.channels, model.label_dim, model.D) == (8, 3, 2, None)
    code, stdout, _ = run("model", "inspect", file)
    assert code == 0
    assert "down, up" in stdout
    assert "6400 images in a run of 6400 images, batch 32" in stdout
    images = tmp_path / "images"
    code, _, stderr = run(
        "generate", "--model", file, "--plan", "18", "--seeds", "0-15", "--class", "up", "--out", images
    )
    assert code == 0, stderr
    assert read_images(images).classes == ("down", "up")
    drawn = np.stack([np.asarray(Image.open(path), float) for path in sorted(images.rglob("*.png"))])
    assert drawn.shape == (16, 8, 8, 3)
    top, bottom = drawn[:, :2].mean(), drawn[:, -2:].mean()
    assert bottom > 1.5 * top  # as in the pictures of this class


def test_killed_and_resumed_it_makes_the_same_bytes(undisturbed, folder, tmp_path):
    out = tmp_path / "killed"
    words = (folder, "--out", out, "--parametrization", "edm", "--cond", *TINY, *LENGTH, "--save-minutes", "0.02")
    for sign in ("model.safetensors", "samples-*.png"):  # in the middle of the first save, and after a state was saved
        process = train(*words)
        wait_for(lambda sign=sign: list(out.glob(sign)), process)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert (out / "state.pt").exists()
    assert not (out / "samples-6400.png").exists()
    _, stderr = finish(train(*words))
    assert (out / "model.safetensors").read_bytes() == (undisturbed[0] / "model.safetensors").read_bytes()
    assert not list(out.glob(".*"))
    images = [line["images"] for line in history(out)]
    assert images == sorted(set(images))
    assert images[-1] == 6400
    assert "goes on: it has trained on" in stderr


def test_a_finished_run_does_nothing_and_says_so(undisturbed, folder, run):
    out, _, _ = undisturbed
    before = {path: path.stat().st_mtime_ns for path in out.iterdir() if path.name != "run.json"}
    code, _, stderr = run("train", folder, "--out", out, "--parametrization", "edm", "--cond", *TINY, *LENGTH)
    assert code == 0
    assert "is finished, and nothing is left to do: it has trained on 6400 images" in stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_run_in_the_folder_is_refused(undisturbed, folder, run):
    out, _, _ = undisturbed
    for change, difference in (
        (("--batch", "64"), "batch 32, not 64"),
        (("--seed", "1"), "seed 0, not 1"),
        (("--dropout", "0.5"), "dropout 0.05, not 0.5"),
        (("--images", "9600", "--lr", "0.02"), "lr 0.01, not 0.02"),  # which is why it is not the same run, longer
        (("--images", "3200"), "images 6400, not 3200; a run goes on for more of what it counts by"),
    ):
        standard = ("train", folder, "--out", out, "--parametrization", "edm", "--cond", *TINY, *LENGTH)
        code, _, stderr = run(*instead(standard, *change))
        assert code == 2
        assert stderr.splitlines()[-1].endswith(f"holds another run, with {difference}; choose another --out")


def test_another_set_of_images_is_refused(undisturbed, folder, run, tmp_path):
    other = tmp_path / "data"
    for path in folder.rglob("*.png"):
        (other / path.parent.name).mkdir(parents=True, exist_ok=True)
        image = Image.open(path)
        image.putpixel((0, 0), (1, 2, 3))
        image.save(other / path.relative_to(folder))
    out, _, _ = undisturbed
    code, _, stderr = run("train", other, "--out", out, "--parametrization", "edm", "--cond", *TINY, *LENGTH)
    assert code == 2
    assert "holds another run, with data_sha256" in stderr


@pytest.mark.parametrize(
    ("parametrization", "class_name", "D"), [("vp", "VPPrecond", None), ("pfgmpp", "EDMPrecond", 128)]
)
def test_the_other_parametrizations(parametrization, class_name, D, folder, run, tmp_path):
    out = tmp_path / "run"
    augmented = () if D is None else ("--D", D)
    words = ("train", folder, "--out", out, "--parametrization", parametrization, *augmented, *TINY)
    code, stdout, stderr = run(*words, "--images", "320", "--device", "cpu", "--json")
    assert code == 0, stderr
    result = json.loads(stdout)
    assert result["images"] == 320
    model = rs.load_model(out / "model.safetensors")
    assert (type(model).__name__, model.D, model.label_dim) == (class_name, D, 0)
    assert rs.load_model(out / "model.safetensors").sigma_min == model.sigma_min


def test_a_run_by_the_clock(folder, run, tmp_path):
    words = ("train", folder, "--out", tmp_path / "run", "--parametrization", "edm", *TINY, "--minutes", "0.02")
    code, stdout, _ = run(*words, "--device", "cpu", "--json")
    assert code == 0
    result = json.loads(stdout)
    assert 1.2 <= result["seconds"] < 4
    assert history(tmp_path / "run")[-1]["learning_rate"] < 0.005


def test_two_processes_train_as_one(folder, run, tmp_path):
    """The batch, the noise and the levels are those of one process; without dropout only the rounding differs."""

    def words(out):
        return (folder, "--out", out, "--parametrization", "pfgmpp", "--D", 64, *TINY, "--dropout", 0, "--images", 64)

    one, two = tmp_path / "one", tmp_path / "two"
    assert run("train", *words(one), "--device", "cpu")[0] == 0
    finish(train(*words(two), processes=2))
    alone, together = history(one), history(two)
    assert [line["images"] for line in alone] == [line["images"] for line in together] == [32, 64]
    for mine, other in zip(alone, together, strict=True):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-5)
    weights, shared = (load_file(out / "model.safetensors") for out in (one, two))
    differences = torch.cat([(weights[name].float() - shared[name].float()).flatten() for name in weights]).abs()
    # Adam's first steps are as long as the learning rate: where a gradient is next to 0, its sign is rounding.
    assert (differences < 1e-4).float().mean() > 0.99


def answer(run, *words):
    code, _, stderr = run("train", *words)
    assert (code, len(stderr.splitlines())) == (2, 1), stderr
    return stderr


def save(path: Path, size, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give either --minutes or --images: how long to train"),
        (("--images", "64", "--minutes", "1"), "give either --minutes or --images: how long to train"),
        (("--images", "0"), "--images"),
        (("--minutes", "-1"), "--minutes"),
        (("--minutes", "inf"), "'--minutes': inf is no finite number"),
        (("--images", "64", "--D", "8"), "--D 8 is for --parametrization pfgmpp; edm has no augmented dimensions"),
        (("--images", "64", "--parametrization", "pfgmpp", "--D", "0"), "--D"),
        (("--images", "64", "--parametrization", "ddpm"), "'ddpm' is not one of 'edm', 'vp', 'pfgmpp'"),
        (("--images", "64", "--channel-mult", "1,x"), "--channel-mult 1,x: give integers from 1"),
        (("--images", "64", "--channel-mult", "1,2,2,2,2"), "halves the images 4 times, and 8x8 is no multiple of 16"),
        (("--images", "64", "--attention", "5"), "--attention 5: the network has the resolutions 8, 4, 2; give some"),
        (("--images", "64", "--channels", "30"), "--channels 30 with --channel-mult 1,2,2 cannot be normalised"),
        (
            ("--images", "64", "--channels", "5"),
            "--channels 5 with --channel-mult 1,2,2 cannot be normalised in groups",
        ),
        (
            ("--images", "64", "--channel-mult", "1,2147483647"),
            "of --channels 64 with --channel-mult 1,2147483647 does",
        ),
        (("--images", "64", "--channel-mult", "1,2147483648"), "--channel-mult 1,2147483648: give integers from 1"),
        (("--images", "64", "--channels", "65537"), "'--channels': 65537 is not in the range 4<=x<=65536"),
        (("--images", "64", "--batch", "2147483648"), "'--batch': 2147483648 is not in the range 1<=x<=2147483647"),
        (("--images", "64", "--dropout", "1"), "--dropout"),
        (("--images", "64", "--augment", "1.5"), "--augment"),
        (("--images", "64", "--ema-images", "0"), "--ema-images"),
        (("--images", "64", "--lr", "0"), "--lr"),
        (("--images", "64", "--lr", "nan"), "'--lr': nan is no finite number"),
        (("--images", "64", "--rank-timeout", "nan"), "'--rank-timeout': nan is no finite number"),
        (("--images", "64", "--batch", "0"), "--batch"),
    ],
)
def test_bad_options(words, message, folder, tmp_path, run):
    standard = (folder, "--out", tmp_path / "run", "--parametrization", "edm")
    assert message in answer(run, *instead(standard, *words))
    assert not (tmp_path / "run").exists()


def test_bad_data(tmp_path, run):
    options = ("--out", tmp_path / "run", "--parametrization", "edm", "--images", "64")
    assert "nowhere" in answer(run, tmp_path / "nowhere", *options)
    save(tmp_path / "plain" / "a.png", (8, 8))
    assert "--cond needs classes" in answer(run, tmp_path / "plain", *options, "--cond")
    save(tmp_path / "wide" / "a.png", (8, 16))
    assert "has images of 8x16, and the networks take squares" in answer(run, tmp_path / "wide", *options)
    save(tmp_path / "clear" / "a.png", (8, 8), "RGBA")
    assert "a.png has transparency, and images have to be RGB or grey" in answer(run, tmp_path / "clear", *options)
    (tmp_path / "plain" / "dataset.json").write_text('{"labels": [["a.png", 5]]}')
    assert "has 1 image, and a class 5" in answer(run, tmp_path / "plain", *options, "--cond")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("size", "mode"), [((8, 4), "RGB"), ((16, 16), "RGB"), ((8, 8), "L")])
def test_images_that_differ(size, mode, tmp_path, run):
    save(tmp_path / "data" / "a.png", (8, 8))
    save(tmp_path / "data" / "b.png", size, mode)
    code, _, stderr = run(
        "train", tmp_path / "data", "--out", tmp_path / "run", "--parametrization", "edm", "--images", "64"
    )
    assert code == 2
    assert "b.png is" in stderr.splitlines()[-1]
    assert "and the first image is 8x8" in stderr.splitlines()[-1]
    assert not any((tmp_path / "run").glob("*"))


def test_a_batch_that_the_processes_cannot_share(folder, tmp_path, run, monkeypatch):
    two = nullcontext(Ranks(0, 2, torch.device("cpu")))
    monkeypatch.setattr("restart_sampling.base.ranks.distributed", lambda device, rank_timeout: two)
    words = (folder, "--out", tmp_path / "run", "--parametrization", "edm", "--images", "64", "--batch", "33")
    assert "--batch 33 cannot be shared by 2 processes; give a multiple of that" in answer(run, *words)


@pytest.mark.parametrize(
    ("serves", "option", "network"),
    [
        (True, (), "kernels"),
        (True, ("--compile",), "kernels"),
        (True, ("--no-compile",), "plain"),
        (False, (), "plain"),
        (False, ("--compile",), "compiled"),
    ],
)
def test_what_the_network_runs_by(serves, option, network, folder, tmp_path, monkeypatch, run):
    asked, compiled = [], []
    monkeypatch.setattr(fast, "kernels_serve", lambda device, images: asked.append((device.type, images)) or serves)
    monkeypatch.setattr(fast, "compile_for_training", lambda device, dtype: compiled.append(dtype))

    def made(*_, network):
        assert compiled == ([torch.float32] if network == "kernels" else [])
        raise InputError(f"made: {network}")

    monkeypatch.setattr("restart_sampling.training.trainer.Trainer", made)
    words = (folder, "--out", tmp_path / "run", "--parametrization", "edm", *TINY, *LENGTH, *option)
    _, _, said = run("train", *words, "--device", "cpu")
    assert f"made: {network}" in said
    assert ("with kernels of this package" in said) == (network == "kernels")
    assert ("by torch.compile" in said) == (network == "compiled")
    assert asked == ([] if "--no-compile" in option else [("cpu", 32)])


def test_a_trainer_that_cannot_be_made_ends_the_reading(folder, run, tmp_path, monkeypatch):
    def fail(*_):
        raise InputError("it does not fit")

    def batches(self, size):
        for number in range(20):
            time.sleep(0.01 * number)  # until the thread has failed
            read.append(number)
            yield np.zeros((1, 3, 8, 8), np.uint8)

    read = []
    monkeypatch.setattr("restart_sampling.training.trainer.early_trainer", fail)
    monkeypatch.setattr("restart_sampling.images.image_set.ImageSet.batches", batches)
    code, _, said = run("train", folder, "--out", tmp_path / "run", "--parametrization", "edm", *TINY, *LENGTH)
    assert (code, said.splitlines()[-1]) == (2, "restart-sampling: it does not fit")
    assert len(read) < 20


def test_a_damaged_state_is_refused(undisturbed, folder, run, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_bytes((undisturbed[0] / "run.json").read_bytes())
    (out / "state.pt").write_bytes((undisturbed[0] / "state.pt").read_bytes()[:-1000])
    code, _, stderr = run("train", folder, "--out", out, "--parametrization", "edm", "--cond", *TINY, *LENGTH)
    assert code == 2
    assert "state.pt is damaged" in stderr.splitlines()[-1]


def test_a_loss_that_is_not_finite_ends_the_run(folder, run, tmp_path, monkeypatch):
    monkeypatch.setattr("restart_sampling.training.losses.EDMLoss.P_mean", float("nan"))
    words = ("train", folder, "--out", tmp_path / "run", "--parametrization", "edm", *TINY, *LENGTH, "--device", "cpu")
    code, _, stderr = run(*words)
    assert code == 2
    assert "the loss is not finite after 32 images" in stderr.splitlines()[-1]
