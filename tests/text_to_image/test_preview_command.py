"""`text preview`: one prompt across samplers as a picture."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from arguments import instead
from restart_sampling.cli.text.preview import sample_prompt
from restart_sampling.generation.batch import Batch
from restart_sampling.pictures.side_by_side import plot_side_by_side
from restart_sampling.pictures.style import styles
from restart_sampling.text_to_image.drawing import Request, TextDrawing, prepare
from restart_sampling.text_to_image.long_prompts import cut_note
from restart_sampling.text_to_image.pipeline import load_pipeline
from restart_sampling.text_to_image.samplers import Sampler

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def place(folder, tmp_path, monkeypatch):
    for kind in ("sd", "sdxl", "sd3"):
        (tmp_path / kind).symlink_to(folder(kind))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def preview(run, *arguments, model="sd"):
    return run(*instead(("text", "preview", "--model", model, "--prompt", "a cat"), *arguments))


def test_a_picture_and_a_table(place, run):
    samplers = ("--sampler", "ddim:4", "--sampler", "heun:3", "--sampler", "restart:6 [3,2,0.5,2.0]")
    code, stdout, stderr = preview(run, *samplers, "--seeds", "3,5", "--out", "new/p.png", "--guidance", 2)
    assert code == 0, stderr
    rows = [line.split() for line in stdout.splitlines()]
    assert rows[1][:3] == ["ddim:4", "4", "8"]
    assert rows[2][:3] == ["heun:3", "5", "10"]
    assert rows[3][:4] == ["restart:6", "[3,2,0.5,2]", "14", "28"]
    assert "samplers  ddim:4, heun:3, restart:6 [3,2,0.5,2]" in stderr
    with Image.open("new/p.png") as picture:
        assert picture.width > picture.height > 400


@pytest.fixture
def undrawn(monkeypatch):
    """What takes no part in a statement: the images."""
    grey = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    monkeypatch.setattr(TextDrawing, "draw", lambda self, seeds, advance: iter([Batch(tuple(seeds), None, grey)]))


def test_default_samplers(place, run, undrawn):
    code, stdout, stderr = preview(run, "--seeds", "0", "--json")
    assert code == 0, stderr
    result = json.loads(stdout)
    assert [each["sampler"] for each in result["samplers"]] == ["ddim:50", "ddpm:100", "heun:26", "restart:30"]
    assert [each["nfe"] for each in result["samplers"]] == [50, 100, 51, 64]
    assert [each["network_evaluations"] for each in result["samplers"]] == [100, 200, 102, 128]


def test_default_samplers_of_flow_models(place, run, undrawn):
    code, stdout, stderr = preview(run, "--seeds", "0", "--json", model="sd3")
    assert code == 0, stderr
    assert [each["nfe"] for each in json.loads(stdout)["samplers"]] == [28, 29, 34]


def test_every_row_is_checked_before_the_network_is_evaluated(place, run, monkeypatch):
    monkeypatch.setattr("diffusers.UNet2DConditionModel.forward", lambda *_, **__: pytest.fail("evaluated"))
    rows = ("--sampler", "ddim:4", "--sampler", "restart:9 [3,2,0.1,99]", "--guidance", 3)
    code, _, stderr = preview(run, *rows)
    assert code == 2
    assert "sampler 'restart:9 [3,2,0.1,99]' at guidance 3: " in stderr


def test_the_papers_restarts_in_another_model_are_noted_once(place, run, undrawn):
    rows = ("--sampler", "restart:30 restart_solver=euler", "--sampler", "restart:25", "--sampler", "ddim:2")
    code, _, stderr = preview(run, *rows, "--seeds", "0", model="sdxl")
    assert code == 0, stderr
    assert stderr.count("restart's intervals are the paper's for Stable Diffusion 1.5") == 1


def test_each_note_is_said(place, run, undrawn):
    rows = ("--sampler", "ddim:2 beta_end=0.02", "--sampler", "ddim:2 num_train_timesteps=500", "--guidance", "0.5")
    code, _, stderr = preview(run, *rows, "--seeds", "0")
    assert code == 0, stderr
    assert "the network was trained with beta_end=0.012, and the sampler has beta_end=0.02" in stderr
    assert (
        "the network was trained with num_train_timesteps=1000, and the sampler has num_train_timesteps=500" in stderr
    )
    assert "StableDiffusionPipeline does no classifier-free guidance at scale 0.5" in stderr


def test_what_neither_the_pipeline_nor_the_picture_shows_is_said(place, run, undrawn):
    """The pipeline's CLIP reads 16 tokens, and a letter is one."""
    code, _, stderr = preview(run, "--sampler", "ddim:2", "--seeds", "0", "--prompt", "abcdefghijklmn")
    assert (code, "note" in stderr) == (0, False)
    long = ("--prompt", "abcdefghijklmn o \u8239", "--negative-prompt", "b" * 30, "--sampler", "ddim:2", "--seeds", "0")
    code, _, stderr = preview(run, *long)
    assert code == 0, stderr
    assert (
        "the pipeline reads 16 tokens of a prompt, with start and end, and does not see the end of 2 prompts, such as "
        "'abcdefghijklmn o \u8239'"
    ) in stderr
    assert "note: the picture's font lacks characters of the prompt, which its title shows as boxes" in stderr
    assert "UserWarning" not in stderr
    tokenizer = load_pipeline("sd", torch.device("cpu"), torch.float32).pipe.tokenizer
    readers = {"tokenizer": tokenizer, "tokenizer_2": None}
    model = SimpleNamespace(pipe=SimpleNamespace(components=readers))
    assert cut_note(model, ["b" * 30]).startswith("the pipeline reads 16 tokens")
    readers["tokenizer_2"] = object()  # as FLUX's second, which is no CLIP's and reads on
    assert cut_note(model, ["b" * 30]) is None


def test_a_sampler_has_its_own_guidance_in_place_of_the_default(place, run, undrawn):
    rows = ("--sampler", "ddim:2 guidance=4.2", "--sampler", "ddim:3", "--seeds", "0")
    code, _, stderr = preview(run, *rows)
    assert code == 0, stderr
    assert "guidance  4.2, 7.5" in stderr
    code, _, stderr = preview(run, *rows, "--guidance", "3")
    assert (code, "goes with guidance 4.2, and 3 is asked for" in stderr) == (2, True)


def drawn(drawings, seeds):
    return [sample_prompt(drawing, seeds, lambda count: None) for drawing in drawings]


def plotted(monkeypatch, samplers, seeds):
    """The figure, before it is written."""
    from matplotlib.figure import Figure

    kept = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (kept.append(self), Path(path).touch()))
    plot_side_by_side(samplers, [f"seed {seed}" for seed in seeds], Path("p.png"), title="a cat")
    return kept[0]


def test_every_cell_is_the_image_of_its_seed_and_every_path_that_of_its_sampler(place, model, monkeypatch):
    texts, seeds = ("ddpm:4", "restart:6 [3,2,0.5,2]"), (3, 5, 9)
    drawings = [prepare(model(), Request(Sampler.parse(text), guidance=2.0), "a cat", 2) for text in texts]
    figure = plotted(monkeypatch, drawn(drawings, seeds), seeds)
    images = [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]
    expected = [
        torch.cat([batch.images for batch in replace(each, batch=3).draw(seeds)]).permute(0, 2, 3, 1)
        for each in drawings
    ]
    assert np.abs(np.stack(images).astype(int) - torch.cat(expected).int().numpy()).max() <= 1
    paths = [axes for axes in figure.axes if axes.lines]
    for axes, drawing in zip(paths, drawings, strict=True):
        (line,) = axes.lines
        shown = list(zip(*line.get_data(), strict=True))
        assert shown == [(row, level) for row, level in drawing.path if level > 0]
        assert axes.get_xlim() == (0, 14)
    words = [each.get_text() for each in figure.texts]
    assert words[0] == "a cat"
    assert {*texts, "NFE 4, 8 network evaluations", "NFE 14, 28 network evaluations"} <= set(words)
    assert [word for word in words if word.startswith("seed")] == ["seed 3", "seed 5", "seed 9"]


def test_names_stay_within_their_rows(place, model, monkeypatch):
    """A long sampler is wrapped, and its row is as tall as that needs."""
    long = "restart:9 [3,2,0.5,2.0] [3,2,1.0,3.0] restart_solver=euler solver=heun restart_grid=even"
    drawings = [prepare(model(), Request(Sampler.parse(text), guidance=2.0), "a cat", 2) for text in (long, "ddim:2")]
    samplers = drawn(drawings, [0])
    figure = plotted(monkeypatch, samplers, [0])
    figure.canvas.draw()
    cell = next(axes for axes in figure.axes if axes.get_images()).get_window_extent()
    name = next(each for each in figure.texts if each.get_text().startswith("restart"))
    cost = next(each for each in figure.texts if each.get_text().startswith("NFE"))
    assert name.get_window_extent().x0 > 0
    assert name.get_window_extent().x1 < cell.x0
    assert cost.get_window_extent().x1 < cell.x0
    assert name.get_window_extent().y1 < figure.bbox.y1 - 0.5 * figure.dpi  # below the prompt and the seeds
    assert name.get_window_extent().y0 > cost.get_window_extent().y1 > cost.get_window_extent().y0 > cell.y0
    assert name.get_color() == styles([each.family for each in samplers])[samplers[0].family].colour


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "p.jpg"), "--out p.jpg: the picture is a PNG file"),
        (("--seeds", "x"), "cannot read 'x'"),
        (("--sampler", "ddmp"), "there is no sampler 'ddmp'"),
        (("--sampler", "ddim", "--sampler", "ddim:50"), "--sampler 'ddim:50' is given twice"),
        (("--sampler", "euler"), "is not for models that predict noise"),
        (("--prompt", " "), "--prompt has no text"),
        (("--model", "./none"), "--model ./none: there is no such folder"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, place, run):
    code, stdout, stderr = preview(run, *arguments)
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert len(stderr.splitlines()) == 1
    assert not Path("preview.png").exists()


def test_a_missing_optional_package_is_one_sentence(place, run, monkeypatch):
    monkeypatch.setattr("restart_sampling.base.errors.find_spec", lambda package: None)
    code, _, stderr = preview(run)
    assert code == 2
    assert stderr.startswith("restart-sampling: this needs matplotlib")
