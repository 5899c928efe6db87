"""`text generate` as users meet it: a folder or a zip, the same bytes after a kill and on any number of processes."""

import csv
import json
import shutil
import zipfile
from contextlib import chdir
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from copies import TORCHRUN, start, wait_for, write_slow
from restart_sampling.base.files import is_partial
from restart_sampling.cli import main
from restart_sampling.images.image_set import read_images
from restart_sampling.images.prompts import read_prompts
from tiny import detector_file, image_folder, pictures
from tiny_clip import clip_folder

PROMPTS = ["a cat", "two dogs, running", 'a "red" bus', "the sea\nat night", "x", "rain", "an old man"]

pytestmark = pytest.mark.usefixtures("one_thread", "read_once")


@pytest.fixture
def place(folder, tmp_path, monkeypatch):
    """A folder with a tiny pipeline and a CSV of prompts."""
    (tmp_path / "sd").symlink_to(folder())
    monkeypatch.chdir(tmp_path)
    write(PROMPTS)
    return tmp_path


@pytest.fixture(scope="module")
def drawn(folder, tmp_path_factory):
    """The images of the prompts, as the command with the usual words makes them."""
    place = tmp_path_factory.mktemp("drawn")
    with chdir(place):
        Path("sd").symlink_to(folder())
        write(PROMPTS)
        with pytest.raises(SystemExit) as end:
            main(words())
    assert end.value.code == 0
    return place / "images"


@pytest.fixture
def there(place, drawn):
    """A folder with the same, and these images."""
    shutil.copytree(drawn, "images")


def write(prompts, name="prompts.csv"):
    with Path(name).open("w", newline="") as file:
        csv.writer(file).writerows([["id", "caption"], *enumerate(prompts, start=100)])


def words(out="images", *more, **options):
    given = {"model": "sd", "prompts": "prompts.csv", "scheduler": "ddpm", "steps": 3, "batch": 2, **options}
    pairs = {f"--{name}": value for name, value in given.items() if value is not None}
    return ["text", "generate", *(str(word) for pair in pairs.items() for word in pair), "--out", str(out), *more]


def generate(run, out="images", *more, **options):
    code, stdout, stderr = run(*words(out, "--json", *more, **options))
    assert code == 0, stderr
    return json.loads(stdout)


def contents(out):
    if out.suffix == ".zip":
        return {"": out.read_bytes()}
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def pixels(out):
    return read_images(out).take(range(len(read_images(out)))).batches(64).__next__()


def test_a_folder_that_score_and_evaluate_read(place, run):
    result = generate(run)
    assert (result["images"], result["drawn"], result["sampler"], result["nfe"]) == (7, 7, "ddpm:3", 3)
    assert (result["guidance"], result["network_evaluations"], result["prompts"]) == (7.5, 6, "images/subset.csv")
    with Path("images/subset.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["", "caption"], *([str(n), text] for n, text in enumerate(PROMPTS))]
    assert sorted(path.name for path in Path("images/000000").iterdir()) == [f"{n:06d}.png" for n in range(7)]
    assert len({image.tobytes() for image in pixels("images")}) == 7
    clip_folder(Path("clip"))
    code, stdout, _ = run(
        *("text", "score", "images", "--prompts", "images/subset.csv", "--metrics", "clip", "--clip", "clip", "--json")
    )
    assert (code, json.loads(stdout)["images"]) == (0, 7)
    detector_file(Path("tiny.pt"))
    image_folder(Path("real"), pictures(40, size=16))
    assert run("reference", "real", "--out", "ref.npz", "--detector", "tiny.pt", "--trust-detector")[0] == 0
    evaluate = ("evaluate", "many", "--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "--json")
    write([f"{text} {which}" for which in "abc" for text in PROMPTS], "more.csv")
    generate(run, "many", prompts="more.csv", steps=1)
    code, stdout, stderr = run(*evaluate)
    assert code == 0, stderr
    assert json.loads(stdout)["images"] == 21


def test_what_it_will_do_is_said_before(place, run):
    code, _, stderr = run(*words(scheduler="restart [3,2,0.5,2.0]", steps=6, guidance=2, seed=5))
    assert code == 0
    assert "sampler  restart:6 [3,2,0.5,2], guidance 2" in stderr
    assert "NFE      14 (28 network evaluations with guidance 2)" in stderr
    assert "images   7 of prompts.csv (seeds 5-11), 2 at a time" in stderr
    assert "1 x cpu, networks in float32" in stderr
    assert "safety checker" not in stderr


def test_the_papers_restarts_in_another_model_are_noted_before(place, run, folder):
    code, _, stderr = run(
        *words("images", "--dry-run", scheduler="restart", steps=None, model=folder("sdxl"), images=1)
    )
    assert code == 0, stderr
    assert "note     restart's intervals are the paper's for Stable Diffusion 1.5, and StableDiffusionXL" in stderr
    assert stderr.index("note") < stderr.index("NFE")
    code, _, stderr = run(*words("images", "--dry-run", scheduler="ddim:2 clip_sample_range=3", steps=None, images=1))
    assert "note     the sampler 'ddim:2 clip_sample_range=3' draws the same without clip_sample_range=3" in stderr
    assert "note" not in run(*words("others", steps=1, images=1))[2]


def test_the_manifest_says_what_made_them(there, model):
    manifest = json.loads(Path("images/manifest.json").read_text())
    made = manifest["run"]
    assert (made["model_sha256"], made["sampler"], made["guidance"]) == (model().sha256, "ddpm:3", 7.5)
    assert made["scheduler"]["class"] == "DDPMScheduler"
    assert (manifest["nfe"], manifest["network_evaluations"], manifest["complete"]) == (3, 6, True)
    assert {"diffusers", "transformers", "torch"} <= manifest["versions"].keys()


def test_a_zip_has_the_same_images_and_its_prompts_beside_it(there, run):
    result = generate(run, "images.zip")
    assert result["prompts"] == "images.subset.csv"
    assert read_prompts(Path("images.subset.csv")) == PROMPTS
    with zipfile.ZipFile("images.zip") as archive:
        for number in range(7):
            name = f"000000/{number:06d}.png"
            assert archive.read(name) == Path("images", name).read_bytes()


def test_other_batch_sizes_give_the_same_images(there, run):
    for batch in (1, 3, 7):
        generate(run, f"batch-{batch}", batch=batch)
        difference = pixels(f"batch-{batch}").astype(int) - pixels("images")
        assert np.abs(difference).max() <= 1


def test_the_first_prompts_are_the_first_images(there, run):
    generate(run, "first", images=4)
    assert read_prompts(Path("first/subset.csv")) == PROMPTS[:4]
    for number in range(4):
        name = f"000000/{number:06d}.png"
        assert Path("first", name).read_bytes() == Path("images", name).read_bytes()


def test_a_finished_run_is_checked_and_a_damaged_image_made_again(there, run):
    whole = contents(Path("images"))
    code, _, stderr = run(*words())
    assert code == 0
    assert "images is complete: 7 images, there already and intact" in stderr
    Path("images/000000/000005.png").write_bytes(b"")
    assert generate(run)["drawn"] == 2
    assert contents(Path("images")) == whole


def test_the_users_own_table_is_left_alone(there, run):
    """--prompts DIR/subset.csv of a run that is there, which has more columns than ours."""
    content = b"id,caption,author\n" + b"".join(f"{n},text {n},me\n".encode() for n in range(7))
    Path("images/subset.csv").write_bytes(content)
    code, _, stderr = run(*words(prompts="images/subset.csv"))
    assert code == 2
    assert "holds another run, with prompts" in stderr
    write(PROMPTS, "images/subset.csv")
    content = Path("images/subset.csv").read_bytes()
    assert generate(run, prompts="images/subset.csv")["drawn"] == 0
    assert Path("images/subset.csv").read_bytes() == content


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ({"scheduler": "ddim"}, 'with sampler "ddpm:3", not "ddim:3"'),
        ({"steps": 4}, 'with sampler "ddpm:3", not "ddpm:4"'),
        ({"guidance": 2}, "with guidance 7.5, not 2.0"),
        ({"seed": 1}, "with seed 0, not 1"),
        ({"negative-prompt": "red"}, 'with negative_prompt null, not "red"'),
        ({"height": 24, "width": 16}, "with height null, not 24"),
        ({"images": 3}, 'with prompts "7, sha256 '),
        ({"model": "other"}, "with model_sha256"),
        ({"batch": 3}, "made with --batch 2, not 3"),
    ],
)
def test_something_else_in_the_same_place_is_refused(options, differs, there, run, folder, capsys):
    if "model" in options:
        options = {"model": folder("sdxl")}
        capsys.readouterr()  # what its writing says
    whole = contents(Path("images"))
    code, stdout, stderr = run(*words(**options))
    assert (code, stdout) == (2, "")
    assert differs in stderr
    assert len(stderr.splitlines()) == 1
    assert contents(Path("images")) == whole


BAD = {
    "no such table": ({"prompts": "none.csv"}, "prompts none.csv cannot be read (No such file or directory)"),
    "no captions": ({"prompts": "columns.csv"}, "prompts columns.csv has no column 'caption' (it has: 'id', 'text')"),
    "an empty caption": ({"prompts": "empty.csv"}, "number 1, counted from 0, has no text"),
    "too many images": ({"images": 9}, "--images 9: prompts.csv holds 7 prompts; ask for as many or fewer"),
    "unknown sampler": ({"scheduler": "ddmp"}, "there is no sampler 'ddmp'"),
    "steps twice": ({"scheduler": "ddim:5"}, "sampler 'ddim:5' has 5 steps and 3 are asked for"),
    "another kind": ({"scheduler": "euler"}, "sampler 'euler:3' is not for models that predict noise"),
    "a plan that does not fit": (
        {"scheduler": "restart [10,2,0.1,2.0] restart_budget=inside"},
        "take 35 evaluations of the network, and there are 3 in all",
    ),
    "a level that is not there": ({"scheduler": "restart [3,2,0.1,99]"}, "t_max is above sigma_max"),
    "no such folder": ({"model": "./none"}, "--model ./none: there is no such folder"),
    "a size that cannot be": ({"height": 17, "width": 16}, "`height` and `width` have to be divisible by 8"),
    "half a size": ({"height": 24}, "height and width go together"),
    "no guidance": ({"guidance": "nan"}, "guidance is nan"),
    "no step": ({"steps": 0}, "--steps"),
    "a device that is not there": ({"device": "mps"}, "--device mps: torch sees no such device"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_written(case, place, run):
    options, said = BAD[case]
    Path("columns.csv").write_text("id,text\n0,a cat\n")
    write(["a", " "], "empty.csv")
    code, stdout, stderr = run(*words(**options))
    assert (code, stdout) == (2, "")
    assert said in stderr
    assert stderr.startswith("restart-sampling: ")
    assert len(stderr.splitlines()) == 1
    assert not Path("images").exists()


@pytest.mark.parametrize("out", ["images", pytest.param("images.zip", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_to_the_same_bytes(out, place, run):
    whole_out = Path(f"whole-{out}")
    write([f"prompt {number}" for number in range(24)])
    generate(run, whole_out)
    write_slow("restart_sampling.generation.store", "encode_png", 0.05)
    process = start("slow.py", *words(out))
    blocks = Path("images.zip.blocks/.blocks" if out == "images.zip" else "images/.blocks")

    def done():
        return [path for path in blocks.glob("0*") if not is_partial(path)] if blocks.exists() else []

    wait_for(lambda: len(done()) >= 3, process)
    process.kill()
    process.communicate()
    before = 2 * len(done())
    assert 6 <= before < 24
    assert generate(run, out)["drawn"] == 24 - before
    assert contents(Path(out)) == contents(whole_out)


def test_two_processes_give_the_same_bytes_and_never_the_same_noise(place, run):
    """All prompts are the same, so that only the noise tells the images apart."""
    write(["a cat"] * 9)
    generate(run, "one")
    process = start(*TORCHRUN, "--nproc_per_node=2", "-m", "restart_sampling", *words("two", "--json"))
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["drawn"] == 9
    assert "2 x cpu" in stderr
    assert contents(Path("two")) == contents(Path("one"))
    images = [np.asarray(Image.open(path), int) for path in sorted(Path("two").glob("*/*.png"))]
    assert all(np.abs(one - other).mean() > 5 for i, one in enumerate(images) for other in images[:i])


def test_prompts_of_the_command_line(place, run):
    generate(run, "file", images=2)
    generate(run, "given", "--prompt", PROMPTS[0], "--prompt", PROMPTS[1], prompts=None)
    assert np.array_equal(pixels("file"), pixels("given"))
    assert Path("given/subset.csv").read_text() == Path("file/subset.csv").read_text()
    estimate = generate(run, "dry", "--prompt", "a fox", "--dry-run", prompts=None, height=16, width=16)
    assert (estimate["images"], estimate["bytes"] < 2000, Path("dry").exists()) == (1, True, False)


@pytest.mark.parametrize(
    ("more", "prompts", "said"),
    [
        (("--prompt", "a fox"), "prompts.csv", "give either --prompt, or --prompts with a file"),
        ((), None, "--model sd has no prompts of its own; give --prompts with a file"),
        (("--prompt", " "), None, "--prompt has no text"),
        (("--prompt", "a fox", "--images", "2"), None, "--images 2 is for --prompts"),
    ],
)
def test_prompts_that_are_not_clear_are_refused(more, prompts, said, place, run):
    code, _, err = run(*words("images", *more, prompts=prompts))
    assert code == 2
    assert said in err
