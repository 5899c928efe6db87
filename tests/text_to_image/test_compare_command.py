"""`text compare`: the whole table, kept through a kill, where one row that fails does not end the others."""

import hashlib
import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from arguments import instead
from copies import TORCHRUN, start, wait_for, write_slow
from restart_sampling.base.numbers import with_error
from restart_sampling.base.ranks import Ranks
from restart_sampling.cli.text.compare import SAMPLERS
from restart_sampling.comparison.published_text import NOTES, find_published, published_text
from restart_sampling.evaluation import aesthetic
from restart_sampling.evaluation.detectors import load_detector
from restart_sampling.evaluation.measure import make_reference
from restart_sampling.evaluation.reference import save_reference
from restart_sampling.images.prompts import write_prompts
from restart_sampling.text_to_image.samplers import Sampler
from tiny import detector_file, pictures
from tiny_clip import clip_folder

TIMES = {"seconds", "time", "drawn", "device"}
RESULTS = Path("table/results.jsonl")
COMPARE = (
    *("text", "compare", "--model", "sd", "--prompts", "prompts.csv", "--reference", "ref.npz"),
    *(
        "--detector",
        "tiny.pt",
        "--trust-detector",
        "--clip",
        "clip",
        "--metrics",
        "fd,clip",
        "--batch",
        "6",
        "--out",
        "table",
    ),
)
ROWS = ("--guidance", "2,5", "--sampler", "ddim:3", "--sampler", "ddpm:2")
NAMES = ["ddim:3 at 2", "ddpm:2 at 2", "ddim:3 at 5", "ddpm:2 at 5"]

pytestmark = pytest.mark.usefixtures("one_thread", "read_once")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny CLIP, detector and reference, and 24 prompts."""
    folder = tmp_path_factory.mktemp("made")
    clip_folder(folder / "clip")
    detector = load_detector(str(detector_file(folder / "tiny.pt")), trust=True)
    images = torch.from_numpy(pictures(40, size=16))
    ranks = Ranks(0, 1, torch.device("cpu"))
    save_reference(make_reference(iter([(range(40), images, None)]), 40, detector, ranks), folder / "ref.npz")
    write_prompts([f"{many} {what}" for many in ("a", "two", "no") for what in "abcdefgh"], folder / "prompts.csv")
    return folder


@pytest.fixture
def place(folder, made, tmp_path, monkeypatch):
    (tmp_path / "sd").symlink_to(folder())
    for file in made.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines():
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def untimed(results):
    return [{key: value for key, value in result.items() if key not in TIMES} for result in results]


def test_a_line_and_a_row_for_each_sampler_at_each_scale(place, run, model):
    code, stdout, stderr = run(*COMPARE, *ROWS, "--keep-images")
    assert code == 0, stderr
    results = lines()
    assert [result["name"] for result in results] == NAMES
    table = stdout.splitlines()
    assert len(table) == 5
    for line, result in zip(table[1:], results, strict=True):
        assert line.split()[:4] == [
            result["sampler"],
            f"{result['guidance']:g}",
            str(result["nfe"]),
            str(result["network_evaluations"]),
        ]
        assert with_error(result["frechet_distance"], result["frechet_distance_error"]) in line
        assert with_error(result["clip_score"], result["clip_score_error"]) in line
        assert result["network_evaluations"] == 2 * result["nfe"]
        assert (result["images"], result["run"]["seed"], result["plan"]) == (24, 0, None)
        assert result["run"]["model_sha256"] == model().sha256
        assert (result["metrics"], result["clip"]["scale"]) == (["fd", "clip"], 1)
    assert "rows       4, 20 network evaluations of an image in all" in stderr
    # The same figures as of the commands that this one puts together.
    for number, result in enumerate(results):
        images = Path(result["samples"]).stem
        score = ("text", "score", f"table/images/{images}", "--prompts", "prompts.csv", "--clip", "clip", "--json")
        assert json.loads(run(*score, "--metrics", "clip")[1])["clip_score"] == pytest.approx(result["clip_score"])
        evaluate = (
            "evaluate",
            f"table/images/{images}",
            "--reference",
            "ref.npz",
            "--detector",
            "tiny.pt",
            "--trust-detector",
            "--json",
        )
        one = json.loads(run(*evaluate)[1])
        assert one["frechet_distance"] == pytest.approx(result["frechet_distance"], rel=1e-6)
        assert one["pixels_sha256"] == result["pixels_sha256"]
        strip = np.array(Image.open(Path("table", result["samples"])))
        first = np.array(Image.open(f"table/images/{images}/000000/000000.png"))
        assert np.array_equal(strip[:, :16], first), number
    sampler = ("--scheduler", "ddpm", "--steps", "2", "--guidance", "5", "--batch", "6", "--out", "alone")
    assert run("text", "generate", "--model", "sd", "--prompts", "prompts.csv", *sampler)[0] == 0
    alone = Path("alone/000000/000007.png").read_bytes()
    assert Path(f"table/images/{Path(results[3]['samples']).stem}/000000/000007.png").read_bytes() == alone


def test_images_go_when_a_row_is_finished(place, run):
    assert run(*COMPARE, *ROWS)[0] == 0
    assert sorted(path.name for path in Path("table").iterdir()) == ["results.jsonl", "samples"]
    assert len(list(Path("table/samples").iterdir())) == 4


def test_an_extended_table_does_what_is_missing(place, run):
    assert run(*COMPARE, "--guidance", "2", "--sampler", "ddim:3")[0] == 0
    before = RESULTS.read_text()
    code, stdout, stderr = run(*COMPARE, *ROWS)
    assert code == 0
    assert "; there already: 1" in stderr
    assert "row 1 of 4" not in stderr
    assert "row 2 of 4, ddpm:2 at 2" in stderr
    assert RESULTS.read_text().startswith(before)
    assert [result["name"] for result in lines()] == NAMES
    assert len(stdout.splitlines()) == 5


def test_a_killed_table_goes_on_and_repeats_no_finished_row(place, run):
    assert run(*COMPARE, *ROWS)[0] == 0
    whole = untimed(lines())
    blocks = Path("table/images", Path(whole[2]["samples"]).stem, ".blocks")
    shutil.rmtree("table")
    write_slow("restart_sampling.generation.store", "encode_png", 0.03)
    process = start("slow.py", *COMPARE, *ROWS)
    wait_for(lambda: blocks.exists() and len(list(blocks.glob("*.json"))) >= 2, process)
    process.kill()
    process.communicate()
    before = RESULTS.read_text()
    assert len(before.splitlines()) == 2
    code, _, stderr = run(*COMPARE, *ROWS)
    assert code == 0, stderr
    assert RESULTS.read_text().startswith(before)
    assert "; there already: 2" in stderr
    assert "row 2 of" not in stderr
    assert untimed(lines()) == whole
    assert 0 < lines()[2]["drawn"] < 24
    assert lines()[3]["drawn"] == 24
    assert not Path("table/images").exists()


def test_images_that_a_kill_left_of_a_finished_row_go(place, run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("restart_sampling.comparison.text_comparison.TextComparison.tidy", lambda self, row: None)
        assert run(*COMPARE, *ROWS)[0] == 0
    first, *others = Path("table/images").iterdir()
    assert len(others) == 3
    first.rename(first.with_name(f".{first.name}.0123456789abcdef.partial"))  # as it is while it is removed
    assert run(*COMPARE, *ROWS)[0] == 0
    assert not Path("table/images").exists()


def test_a_row_that_fails_does_not_end_the_others(place, run, monkeypatch):
    step = diffusers.DDPMScheduler.step

    def unseeded(self, model_output, timestep, sample, generator=None, return_dict=True):
        return step(self, model_output, timestep, sample, None, return_dict)

    with monkeypatch.context() as patch:
        patch.setattr(diffusers.DDPMScheduler, "step", unseeded)
        code, stdout, stderr = run(*COMPARE, *ROWS)
    assert code == 1
    assert [result["name"] for result in lines()] == NAMES[::2]
    assert stdout.count("failed") == 2
    assert (
        "row 'ddpm:2 at 5' failed: StableDiffusionPipeline with sampler 'ddpm:2' draws noise without a seed" in stderr
    )
    code, _, stderr = run(*COMPARE, *ROWS)
    assert code == 0, stderr
    assert sorted(result["name"] for result in lines()) == sorted(NAMES)


@pytest.fixture
def head(place, monkeypatch):
    """A small head that passes for the paper's."""
    monkeypatch.setenv("RESTART_SAMPLING_CACHE", "cache")
    Path("cache").mkdir()
    file = Path("cache", f"{aesthetic.DEFAULT_HEAD}.pth")
    torch.save(torch.nn.Linear(12, 1).state_dict(), file)
    pin = aesthetic.HeadFile("https://127.0.0.1/none", hashlib.sha256(file.read_bytes()).hexdigest(), "a CLIP")
    monkeypatch.setitem(aesthetic.HEADS, aesthetic.DEFAULT_HEAD, pin)


def test_the_papers_figures_stand_beside_ours(place, run, head):
    rows = ("--metrics", "fd,clip,aesthetic", "--head-clip", "clip", "--guidance", "8", "--sampler")
    code, stdout, stderr = run(*instead(COMPARE, *rows, "restart", "--sampler", "dpmpp:4"))
    assert code == 0, stderr
    header, restart, dpmpp = stdout.splitlines()
    for title in ("paper", "its FID", "its CLIP score", "its aesthetic score"):
        assert title in header
    assert "Restart 66  18.40    0.3228          5.41" in restart
    assert restart.split()[:4] == ["restart:30", "8", "64", "128"]
    assert "paper" not in dpmpp
    assert all(note in stderr for note in NOTES)
    restart_line, _ = lines()
    assert restart_line["published"]["fid"] == 18.40
    assert {"aesthetic_score", "aesthetic_score_error", "clip_score"} <= restart_line.keys()


def test_published_rows():
    rows = published_text()
    assert len(rows) == len({(row.printed, row.guidance) for row in rows}) == 28
    assert {row.sampler for row in rows} | {"dpmpp:25"} == set(SAMPLERS)
    assert [str(Sampler.parse(text)) for text in SAMPLERS] == list(SAMPLERS)
    row = find_published("heun:26", 2.0)
    assert (row.printed, row.fid, row.clip, row.aesthetic) == ("Heun 51", 18.80, 0.2865, 5.14)
    assert find_published("heun:26", 7.5) is None
    best = min((row for row in rows if row.guidance == 3), key=lambda row: row.fid)
    assert best.sampler == "ddim:50"  # and not Restart, as the paper's own table has it


def test_distance_alone_needs_no_clip(place, run):
    Path("clip").unlink()
    command = [word for word in COMPARE if word not in ("--clip", "clip")]
    code, stdout, stderr = run(*instead(command, "--metrics", "fd", "--guidance", "1", "--sampler", "ddim:2", "--json"))
    assert code == 0, stderr
    (result,) = json.loads(stdout)["results"]
    assert (result["nfe"], result["network_evaluations"]) == (2, 2)
    assert "clip_score" not in result


BAD = [
    (("--guidance", "2,x"), "--guidance 2,x: give different scales with commas between"),
    (("--guidance", "2,2.0"), "--guidance 2,2.0: give different scales"),
    (("--sampler", "ddmp"), "there is no sampler 'ddmp'"),
    (("--sampler", "ddim:3", "--sampler", "ddim:3"), "--sampler 'ddim:3' is given twice"),
    (("--sampler", "euler"), "sampler 'euler:28' is not for models that predict noise"),
    (("--sampler", "restart:9 [3,2,0.1,99]"), "t_max is above sigma_max"),
    (("--metrics", "fd,beauty"), "there is no 'beauty'; allowed: fd, kid, pr, fd-infinity, clip, aesthetic"),
    (("--metrics", "fd"), "--clip is for the metric clip, which --metrics fd leaves out"),
    (("--metrics", "kid,clip"), "metric 'kid' needs the features of the reference images"),
    (("--images", "19"), "prompts.csv gives 19 prompts, too few for a distance with its spread; give at least 20"),
    (("--images", "25"), "--images 25: prompts.csv holds 24 prompts"),
    (("--reference", "none.npz"), "reference none.npz cannot be read"),
    (("--clip", "./none"), "CLIP ./none could not be loaded"),
    (("--model", "./none"), "--model ./none: there is no such folder"),
]


@pytest.mark.parametrize(("arguments", "said"), BAD)
def test_bad_input_is_one_sentence_before_any_work(arguments, said, place, run):
    code, stdout, stderr = run(*instead(COMPARE, *arguments))
    assert (code, stdout) == (2, "")
    assert said in stderr.splitlines()[-1]
    assert stderr.splitlines()[-1].startswith("restart-sampling: ")
    assert not RESULTS.exists()


def test_every_row_is_checked_before_the_network_is_evaluated(place, run, folder, monkeypatch):
    """A model whose levels end below the paper's t_max of guidance 2, and not below that of 8."""
    shutil.copytree(folder(), "low")
    config = Path("low/scheduler/scheduler_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | {"beta_end": 0.004}))
    monkeypatch.setattr("diffusers.UNet2DConditionModel.forward", lambda *_, **__: pytest.fail("evaluated"))
    rows = ("--sampler", "ddim:3", "--sampler", "restart", "--guidance", "8,2", "--model", "low")
    code, _, stderr = run(*instead(COMPARE, *rows))
    assert code == 2
    assert "sampler 'restart:30' at guidance 2: " in stderr
    assert "t_max is above sigma_max" in stderr
    assert not RESULTS.exists()


def test_a_sampler_has_its_own_guidance_in_place_of_the_default(place, run):
    rows = ("--sampler", "ddim:2 guidance=4.2", "--sampler", "ddim:3", "--dry-run", "--json")
    code, stdout, stderr = run(*COMPARE, *rows)
    assert code == 0, stderr
    assert json.loads(stdout)["images"] == 5 * 24  # ddim:3 at 2, 3, 5 and 8
    evaluations = 2 * 2 + 4 * 2 * 3  # guided ones are two
    assert f"{evaluations} network evaluations of an image" in stderr
    code, _, stderr = run(*COMPARE, *rows, "--guidance", "4.2,5")
    assert (code, "goes with guidance 4.2, and 5 is asked for" in stderr) == (2, True)


def test_the_papers_restarts_in_another_model_are_noted(place, run, folder):
    rows = ("--sampler", "restart", "--guidance", "2", "--metrics", "fd", "--model", folder("sdxl"), "--dry-run")
    command = [word for word in COMPARE if word not in ("--clip", "clip")]
    code, _, stderr = run(*instead(command, *rows))
    assert code == 0, stderr
    assert "note       restart's intervals are the paper's for Stable Diffusion 1.5" in stderr


@pytest.mark.parametrize(
    ("arguments", "another"),
    [
        (("--seed", "3"), "different seed (0 and 3)"),
        (("--images", "20"), "different prompts"),
        (("--metrics", "fd", "--clip", ""), "different clip and metrics"),
    ],
)
def test_a_results_file_of_something_else(arguments, another, place, run):
    assert run(*COMPARE, "--guidance", "2", "--sampler", "ddim:2")[0] == 0
    content = RESULTS.read_text()
    command = [word for word in COMPARE if word not in ("--clip", "clip")] if "--clip" in arguments else COMPARE
    arguments = [word for word in arguments if word not in ("--clip", "")]
    code, _, stderr = run(*instead(command, "--guidance", "2", "--sampler", "ddim:2", *arguments))
    assert code == 2
    assert another in stderr
    assert RESULTS.read_text() == content


@pytest.mark.slow
def test_two_processes_give_the_same_rows(place, run):
    assert run(*COMPARE, *ROWS)[0] == 0
    whole = untimed(lines())
    shutil.rmtree("table")
    process = start(*TORCHRUN, "--nproc_per_node=2", "-m", "restart_sampling", *COMPARE, *ROWS)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    for one, two in zip(whole, untimed(lines()), strict=True):
        assert one["pixels_sha256"] == two["pixels_sha256"]
        assert one["clip_score"] == two["clip_score"]
        assert one["frechet_distance"] == pytest.approx(two["frechet_distance"], rel=1e-9)


# Of two processes the second cannot draw with one sampler.
BROKEN = """
import os

from diffusers import DDPMScheduler
from restart_sampling.cli import main


def broken(self, model_output, timestep, sample, generator=None, return_dict=True):
    raise RuntimeError("out of memory\\nand more")


if os.environ["RANK"] == "1":
    DDPMScheduler.step = broken
main()
"""


@pytest.mark.slow
def test_a_row_that_fails_on_one_process_fails_on_all_and_the_others_go_on(place):
    Path("broken.py").write_text(BROKEN)
    process = start(*TORCHRUN, "--nproc_per_node=2", "broken.py", *COMPARE, *ROWS)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    assert [result["name"] for result in lines()] == NAMES[::2]
    for name in NAMES[1::2]:
        assert f"row '{name}' failed: RuntimeError: out of memory;" in stderr
