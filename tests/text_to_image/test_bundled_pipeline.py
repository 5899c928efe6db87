"""The pipeline, the CLIP, the prompts and the reference that come with the package, without internet."""

import json
import socket

import pytest
import torch
from diffusers import StableDiffusionPipeline

from restart_sampling.cli.text import pipeline_options
from restart_sampling.evaluation import tiny_clip
from restart_sampling.evaluation.clip import ClipScore, load_clip
from restart_sampling.images.prompts import read_prompts
from restart_sampling.text_to_image import bundled
from restart_sampling.text_to_image.drawing import Request, prepare
from restart_sampling.text_to_image.pipeline import load_pipeline
from restart_sampling.text_to_image.samplers import Sampler

pytestmark = pytest.mark.usefixtures("one_thread", "no_internet")


@pytest.fixture
def no_internet(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was made"))


@pytest.fixture(scope="module")
def tiny():
    return load_pipeline("tiny-text-to-image", torch.device("cpu"), torch.float32)


def drawn(tiny, prompts, sampler="dpmpp:5", guidance=3.0):
    drawing = prepare(tiny, Request(Sampler.parse(sampler), guidance), prompts, batch=len(prompts))
    return torch.cat([batch.images for batch in drawing.draw(range(len(prompts)))])


def test_a_higher_guidance_scale_raises_the_clip_score(tiny):
    prompts, score = read_prompts(bundled.PROMPTS)[:12], ClipScore(load_clip("tiny-clip"))
    scores = [score(drawn(tiny, prompts, guidance=scale), prompts) for scale in (1.0, 4.0)]
    gain = scores[1] - scores[0]
    assert gain.mean() > 3 * gain.std() / len(prompts) ** 0.5


def test_a_prompt_is_seen_in_its_picture(tiny):
    clip = load_clip("tiny-clip")
    prompts = [f"a photo of a {what}" for what in ("red truck", "green frog", "white dog", "blue ship")]
    found = clip.image_features(drawn(tiny, prompts)) @ clip.text_features(prompts).T
    assert found.argmax(1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("prompt", ["", "xylophones, quite unknown", "日本語の絵 🦓", "a photo of a red truck " * 50])
def test_any_prompt_is_drawn(tiny, prompt):
    assert drawn(tiny, [prompt], "ddim:2").shape == (1, 3, 32, 32)


def test_it_is_diffusers_own_pipeline(tiny, tmp_path):
    """What it saves is read by diffusers alone."""
    assert type(tiny.pipe) is StableDiffusionPipeline
    tiny.pipe.save_pretrained(tmp_path / "saved")
    again = load_pipeline(str(tmp_path / "saved"), torch.device("cpu"), torch.float32)
    prompts = ["a dark photo of a red truck"]
    assert torch.equal(drawn(again, prompts, "heun:3"), drawn(tiny, prompts, "heun:3"))


def test_sizes(tiny):
    files = [file for folder in (bundled.FOLDER, tiny_clip.FOLDER) for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 8e6
    networks = (tiny.pipe.unet, tiny.pipe.vae, tiny.pipe.text_encoder)
    assert sum(each.numel() for network in networks for each in network.parameters()) < 5e6


def test_the_command_line_knows_its_name():
    assert pipeline_options.TINY == bundled.TINY


def test_the_text_commands_need_nothing_else(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sampler = ("--sampler", "ddim:2")
    code, _, stderr = run("text", "preview", "--prompt", "a bright photo of a red ship", *sampler, "--seeds", "0")
    assert code == 0, stderr
    assert "guidance  3" in stderr
    code, _, stderr = run("text", "generate", "--scheduler", "ddim:2", "--images", "3", "--out", "images")
    assert code == 0, stderr
    code, stdout, stderr = run("text", "score", "images", "--prompts", "images/subset.csv", "--json")
    assert code == 0, stderr
    assert json.loads(stdout)["clip"]["model"] == "tiny-clip"
    rows = (*sampler, "--guidance", "1,4", "--images", "20", "--batch", "20")
    code, _, stderr = run("text", "compare", *rows, "--out", "table", "--dry-run")
    assert code == 0, stderr
    code, stdout, stderr = run("text", "compare", *rows, "--out", "table", "--json")
    assert code == 0, stderr
    results = json.loads(stdout)["results"]
    assert len(results) == 2
    assert all(result["frechet_distance"] > 0 and -1 < result["clip_score"] < 1 for result in results)
    code, _, stderr = run("figure", "table/results.jsonl", "--kind", "text", "--out", "scores.png")
    assert code == 0, stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("generate",), "prompts of its own; give --prompts with a file"),
        (("compare",), "prompts of its own; give --prompts with a file"),
        (("compare", "--prompts", "p.csv"), "reference of its own; give --reference NPZ"),
    ],
)
def test_another_model_needs_its_own_prompts_and_reference(command, said, run):
    code, _, stderr = run("text", *command, "--out", "x", "--model", "./other")
    assert code == 2
    assert f"--model ./other has no {said}" in stderr
