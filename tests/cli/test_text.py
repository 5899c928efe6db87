"""The commands of the group text, as users meet them."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from arguments import instead
from copies import TORCHRUN, start
from restart_sampling.base.numbers import with_error
from restart_sampling.evaluation import aesthetic
from restart_sampling.evaluation.clip import ClipScore, load_clip, preprocess
from restart_sampling.evaluation.results_file import read_results
from restart_sampling.images.image_set import read_images
from tiny_clip import clip_folder

PROMPTS = ["a cat", "two dogs, running", 'a "red" bus', "the sea", "x", "rain", "an old man &amp; his dog"]
SIZES = [(40, 40), (33, 57), (64, 41), (32, 32), (90, 35), (31, 31), (48, 64)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return clip_folder(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Seven images of odd sizes with their prompts, and a small head that passes for the paper's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", "cache")
    random = np.random.default_rng(0)
    Path("images").mkdir()
    for number, size in enumerate(SIZES):
        small = Image.fromarray(random.integers(0, 256, (2, 2, 3), dtype=np.uint8))
        small.resize(size, Image.Resampling.BILINEAR).save(f"images/{number}.png")
    write_prompts(PROMPTS)
    Path("cache").mkdir()
    torch.manual_seed(0)
    head = Path("cache", f"{aesthetic.DEFAULT_HEAD}.pth")
    torch.save(torch.nn.Linear(12, 1).state_dict(), head)
    pin = aesthetic.HeadFile("https://127.0.0.1/none", hashlib.sha256(head.read_bytes()).hexdigest(), "a CLIP")
    monkeypatch.setitem(aesthetic.HEADS, aesthetic.DEFAULT_HEAD, pin)
    return tmp_path


def write_prompts(prompts):
    with Path("images/subset.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["", "caption"], *enumerate(prompts)])


def score(run, clip, *arguments):
    shared = ("--prompts", "images/subset.csv", "--clip", clip, "--head-clip", clip, "--json")
    code, out, err = run("text", "score", "images", *shared, *arguments)
    assert code == 0, err
    return json.loads(out)


def test_scores_are_the_means_of_all_images(place, run, clip):
    result = score(run, clip)
    loaded = load_clip(str(clip))
    images = torch.stack([torch.tensor(preprocess(Image.open(f"images/{n}.png"), 32)) for n in range(7)])
    cosines = ClipScore(loaded)(images, PROMPTS).double()
    ratings = aesthetic.load_aesthetic(aesthetic.DEFAULT_HEAD, loaded)(images, PROMPTS).double()
    for name, values in (("clip", cosines), ("aesthetic", ratings)):
        assert result[f"{name}_score"] == pytest.approx(values.mean().item(), abs=1e-6)
        assert result[f"{name}_score_error"] == pytest.approx(values.std().item() / 7**0.5, abs=1e-6)
        assert values.std() > 1e-3


def test_the_results_line_says_what_it_depends_on(place, run, clip):
    result = score(run, clip)
    (line,) = read_results(Path("results.jsonl"))
    assert {key: line[key] for key in result} == result
    assert line["clip"] == {"model": str(clip), "identity": load_clip(str(clip)).identity, "scale": 1, "clamp": None}
    assert (line["aesthetic"]["head"], line["aesthetic"]["model"]) == (aesthetic.DEFAULT_HEAD, str(clip))
    assert (line["images"], line["plan"], line["metrics"]) == (7, None, ["clip", "aesthetic"])
    prompts = hashlib.sha256(Path("images/subset.csv").read_bytes()).hexdigest()
    assert line["run"] == {"images": "images", "prompts_sha256": prompts}


def test_the_scale_and_the_models_are_printed(place, run, clip):
    shared = ("--prompts", "images/subset.csv", "--clip", clip, "--head-clip", clip)
    code, out, err = run("text", "score", "images", *shared)
    assert code == 0, err
    (line,) = read_results(Path("results.jsonl"))
    first, second = out.splitlines()
    clip_score, beauty = (
        with_error(line[f"{each}_score"], line[f"{each}_score_error"]) for each in ("clip", "aesthetic")
    )
    assert first.startswith(f"clip score  {clip_score}  (")
    assert first.endswith(f"({clip}, scale 1 (mean cosine))")
    assert second.startswith(f"aesthetic score  {beauty}  (")
    assert second.endswith(f"({aesthetic.DEFAULT_HEAD} on {clip})")


def test_folder_zip_and_batch_size_do_not_matter(place, run, clip):
    whole = score(run, clip)
    shutil.make_archive("packed", "zip", "images")
    for arguments in (("--batch", 1), ("--batch", 3)):
        other = score(run, clip, *arguments)
        assert other["clip_score"] == pytest.approx(whole["clip_score"], abs=1e-6)
        assert other["aesthetic_score"] == pytest.approx(whole["aesthetic_score"], abs=1e-6)
    command = ("text", "score", "packed.zip", "--prompts", "images/subset.csv", "--metrics", "clip", "--clip", clip)
    other = json.loads(run(*command, "--json")[1])
    assert other["clip_score"] == whole["clip_score"]
    assert "aesthetic_score" not in other


def test_world_size_does_not_matter(place, run, clip):
    """Under torchrun with gloo, two processes; the same batches, so the same bits."""
    arguments = ["text", "score", "images", "--prompts", "images/subset.csv", "--metrics", "clip", "--clip", str(clip)]
    arguments += ["--batch", "2", "--json"]
    one = json.loads(run(*arguments)[1])
    process = start(*TORCHRUN, "--nproc_per_node=2", "-m", "restart_sampling", *arguments)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    many = json.loads(stdout.splitlines()[-1])
    assert (many["clip_score"], many["clip_score_error"]) == (one["clip_score"], one["clip_score_error"])
    assert (many["device"], many["images"]) == ("2 x cpu", 7)
    assert len(list(read_results(Path("results.jsonl")))) == 2


def test_a_single_image_has_no_error(place, run, clip):
    for number in range(1, 7):
        Path(f"images/{number}.png").unlink()
    write_prompts(PROMPTS[:1])
    result = score(run, clip)
    assert result["clip_score_error"] is None
    shared = ("--prompts", "images/subset.csv", "--clip", clip, "--metrics", "clip")
    assert "+-" not in run("text", "score", "images", *shared)[1]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--metrics", "clip,beauty"), "--metrics clip,beauty: there is no 'beauty'; allowed: clip, aesthetic"),
        (("--head", "pretty"), "there is no aesthetic head 'pretty'; allowed: sac+logos+ava1-l14-linearMSE, "),
        (("--metrics", "clip", "--head", "pretty"), "--head is for the metric aesthetic, which --metrics clip leaves"),
        (("--clip", "./nowhere"), "CLIP ./nowhere could not be loaded ("),
        (("--prompts", "none.csv"), "prompts none.csv cannot be read (No such file or directory)"),
    ],
)
def test_bad_options_are_one_sentence(arguments, sentence, place, run):
    code, out, err = run(*instead(("text", "score", "images", "--prompts", "images/subset.csv"), *arguments))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"restart-sampling: {sentence}")
    assert not Path("results.jsonl").exists()


def test_bad_files_are_one_sentence(place, run, clip):
    """All of this is found before a model is loaded, but for the damaged image and the damaged model."""
    command = ("text", "score", "images", "--prompts", "images/subset.csv", "--metrics", "clip", "--clip")
    broken = shutil.copytree(clip, Path("broken"))
    (broken / "model.safetensors").write_bytes(b"not weights")
    code, _, err = run(*command, broken)
    assert code == 2
    assert err.splitlines()[-1].startswith("restart-sampling: CLIP broken could not be loaded (")
    Path("images/3.png").rename("images/kept")
    code, _, err = run(*command, "./unused")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.startswith("restart-sampling: images has no image for prompt 3 ('the sea'); its name has to be 3.png")
    Path("images/3.png").write_bytes(b"no image")
    code, _, err = run(*command, clip)
    assert code == 2
    assert err.splitlines()[-1].startswith("restart-sampling: images/3.png is damaged or no image")
    assert not Path("results.jsonl").exists()


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """Twelve images with two captions each."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    Path("val2014").mkdir()
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(12)]
    for number, name in enumerate(names):
        Image.fromarray(random.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)).save(f"val2014/{name}")
    content = {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n % 12, "caption": f"caption {n}"} for n in range(24)],
    }
    Path("captions.json").write_text(json.dumps(content))
    return tmp_path


def test_coco_writes_captions_and_images(coco, run):
    shared = ("text", "coco", "captions.json", "--images", 10)
    code, out, err = run(*shared, "--source", "val2014", "--resolution", 16, "--out", "new/coco", "--json")
    assert code == 0, err
    result = json.loads(out)
    with Path("new/coco/subset.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {row["file_name"] for row in rows}
    assert (result["captions"], result["images"], len(rows)) == (10, len(names), 10)
    images = read_images("new/coco/subset.zip")
    assert (len(images), images.shape) == (len(names), (3, 16, 16))
    assert result["transform"] == "center-crop, Lanczos to 16x16"
    assert result["transform"] in err
    about = json.loads(Path("new/coco/subset.json").read_text())
    assert about == {key: value for key, value in result.items() if key != "out"}
    assert about["annotations_sha256"] == hashlib.sha256(Path("captions.json").read_bytes()).hexdigest()

    assert run(*shared, "--unique-images", "--out", "unique")[0] == 0
    assert json.loads(Path("unique/subset.json").read_text())["images"] == 10
    assert sorted(path.name for path in Path("unique").iterdir()) == ["subset.csv", "subset.json"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--resolution", 16), "--resolution is for the images, and --source, where they are, is missing"),
        (("--images", 25), "captions.json holds 24 captions, and 25 are asked for"),
        (("--source", "val2014", "--resolution", 100), "--resolution 100x100 gives images of 100x100, and the side"),
        (("--source", "empty"), "empty holds no images"),
        (("--out", "there"), "there/subset.csv exists; remove it, or choose another place"),
    ],
)
def test_coco_refuses_in_one_sentence(arguments, sentence, coco, run):
    Path("empty").mkdir()
    Path("there").mkdir()
    Path("there/subset.csv").touch()
    code, out, err = run(*instead(("text", "coco", "captions.json", "--images", 10, "--out", "out"), *arguments))
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.startswith(f"restart-sampling: {sentence}")
    assert not Path("out").exists()
