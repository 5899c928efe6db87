"""`--model file.py:make`: any command draws with the net that a function in a user's own file makes."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import restart_sampling as rs

FILE = """
import torch
import restart_sampling as rs
from beside import SIGMA_DATA


def denoise(x, sigma):
    if STEP == "broken":
        raise KeyError("no weights")
    variance = sigma.reshape(-1, 1, 1, 1) ** 2
    return x * SIGMA_DATA**2 / (variance + SIGMA_DATA**2)


STEP = "whole"


def make():
    return rs.from_edm(denoise, 0.002, 80.0, identity="the Gaussian"), (3, 8, 8)


def broken():
    global STEP
    STEP = "broken"
    return make()


def shapely():
    return make()


def unknown():
    return rs.from_edm(denoise, 0.002, 80.0), (3, 8, 8)


def shapeless():
    return rs.from_edm(denoise, 0.002, 80.0, identity="the Gaussian")


def trained():
    return rs.load_model("tiny.safetensors")


def number():
    return 3


def failing():
    return torch.zeros(2) + torch.zeros(3)


def leaving():
    raise SystemExit(0)


def made(shape):
    return rs.from_edm(denoise, 0.002, 80.0, identity="the Gaussian"), shape


def text():
    return made("388")


def two():
    return made(2)


def two_channels():
    return made((2, 8, 8))
"""


@pytest.fixture
def net_file(place):
    Path("net.py").write_text(FILE)
    Path("beside.py").write_text("SIGMA_DATA = 0.5\n")
    sys.modules.pop("beside", None)  # of another test: commands run in this process
    return place


def test_generate_draws_what_python_draws_and_says_that_the_file_is_run(net_file, run):
    words = ("generate", "--model", "net.py:make", "--plan", "4", "--seeds", "3-4", "--out", "images")
    code, _, err = run(*words)
    assert code == 0, err
    assert err.startswith("--model net.py:make: the code in this file is run\n")
    net = rs.from_edm(
        lambda x, sigma: x * 0.25 / (sigma.reshape(-1, 1, 1, 1) ** 2 + 0.25), 0.002, 80.0, identity="the Gaussian"
    )
    (batch,) = rs.generate(net, "4", [3, 4], shape=(3, 8, 8))
    for seed, image in zip((3, 4), batch.images.numpy(), strict=True):
        assert np.array_equal(np.array(Image.open(f"images/000000/{seed:06d}.png")), image.transpose(1, 2, 0))
    made = json.loads(Path("images/manifest.json").read_text())["run"]["model_sha256"]
    code = [(name, hashlib.sha256(Path(name).read_bytes()).hexdigest()) for name in ("beside.py", "net.py")]
    code_sha256 = hashlib.sha256(repr(("make", code)).encode()).hexdigest()
    assert made == hashlib.sha256(f"{code_sha256} {net.identity}".encode()).hexdigest()
    assert "images is complete" in run(*words)[2]


def test_another_file_is_another_run(net_file, run):
    words = ("generate", "--model", "net.py:make", "--plan", "4", "--seeds", "0", "--out", "images")
    assert run(*words)[0] == 0
    Path("net.py").write_text(FILE.replace("x * SIGMA_DATA**2", "0.9 * x * SIGMA_DATA**2"))
    code, _, err = run(*words)
    assert code == 2
    assert "holds another run, with model_sha256" in err


@pytest.mark.parametrize("change", ["the module beside it", "the function"])
def test_another_module_or_function_is_another_run(change, net_file, run):
    words = ("generate", "--plan", "4", "--seeds", "0", "--out", "images", "--model")
    assert run(*words, "net.py:make")[0] == 0
    if change == "the function":
        Path("net.py").write_text(FILE)
        name = "net.py:shapely"
    else:
        Path("beside.py").write_text("SIGMA_DATA = 0.25\n")
        del sys.modules["beside"]
        name = "net.py:make"
    code, _, err = run(*words, name)
    assert code == 2
    assert "holds another run, with model_sha256" in err


def test_installed_packages_do_not_count(net_file, run):
    """Which of them are imported depends on the command, and they may lie in the file's folder, as may this one."""
    folder = Path("lib/site-packages")
    folder.mkdir(parents=True)
    (folder / "installed_here.py").write_text("")
    Path("net.py").write_text("import sys\nsys.path.append('lib/site-packages')\nimport installed_here\n" + FILE)
    words = ("generate", "--model", "net.py:make", "--plan", "4", "--seeds", "0", "--out", "images")
    assert run(*words)[0] == 0
    (folder / "installed_here.py").write_text("# another version")
    assert "images is complete" in run(*words)[2]


def test_a_checkpoint_keeps_its_classes(net_file, run):
    words = ("--plan", "2", "--seeds", "0-1", "--class", "3", "--guidance", "1.5")
    assert run("generate", "--model", "net.py:trained", *words, "--out", "own")[0] == 0
    assert run("generate", "--model", "tiny.safetensors", *words, "--out", "ours")[0] == 0
    for seed in (0, 1):
        name = f"000000/{seed:06d}.png"
        assert Path("own", name).read_bytes() == Path("ours", name).read_bytes()
    assert json.loads(Path("own/manifest.json").read_text())["network_evaluations"] == 6


def test_evaluate_sweep_and_plan(net_file, run):
    common = ("--model", "net.py:make", "--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "--json")
    code, out, err = run("evaluate", *common, "--plan", "3", "--seeds", "0-23")
    assert code == 0, err
    one = json.loads(out)
    Path("plans.txt").write_text("3\n4 [2,1,0.5,3]\n")
    code, out, err = run("sweep", *common, "--plans", "plans.txt", "--images", "24", "--blocks", "1", "--out", "sweep")
    assert code == 0, err
    first, second = json.loads(out)["results"]
    assert first["frechet_distance"] == pytest.approx(one["frechet_distance"], rel=1e-9)
    assert first["pixels_sha256"] == one["pixels_sha256"] != second["pixels_sha256"]
    code, out, _ = run("plan", "3", "--model", "net.py:make", "--json")
    assert (code, json.loads(out)["levels"][0]) == (0, 80.0)


def test_plan_explains_the_noise_of_a_flow(net_file, run):
    Path("flow.py").write_text(
        "import restart_sampling as rs\ndef make():\n    return rs.from_flow(lambda x, t: x), (3, 8, 8)\n"
    )
    code, out, err = run("plan", "2 [2,1,0.5,0.8] grid=0.9/0.5/0 solver=ddim:eta=0.5", "--model", "flow.py:make")
    assert code == 0, err
    # x = (1 - t) x0 + t n: the rise keeps 0.2 / 0.5 of the state, and 0.8^2 - (0.4 * 0.5)^2 = 0.6
    assert f"1 x from 0.5 up to 0.8 with noise of std {0.6**0.5:.4g}," in out
    assert "noise      in 2 falls, by the solver" in out


def test_a_plan_of_a_flow_is_checked_on_its_own_levels(net_file, run):
    """On the sigmas of a VE model both restarts would begin at one level."""
    Path("flow.py").write_text(
        "import restart_sampling as rs\ndef make():\n    return rs.from_flow(lambda x, t: x, identity='f'), (3, 8, 8)\n"
    )
    plan, drawn = "5 [2,1,0.2,0.4] [2,1,0.6,0.9]", ("--model", "flow.py:make", "--dry-run")
    code, _, err = run("generate", *drawn, "--plan", plan, "--seeds", "0", "--out", "a")
    assert code == 0, err
    Path("plans.txt").write_text(f"{plan}\n18 [3,1,0.5,2]\n")
    measured = ("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "any", "--out", "s")
    code, _, err = run("sweep", *drawn, *measured, "--plans", "plans.txt", "--images", "20")
    assert (code, err.splitlines()[-1].partition(": t_max")[0]) == (
        2,
        "restart-sampling: row '18 [3,1,0.5,2]': restart interval [3,1,0.5,2]",
    )


BAD = {
    "net.py:broken": "net.py, line 9: KeyError: 'no weights'",
    "net.py:failing": "net.py, line 48: RuntimeError: The size of tensor",
    "net.py:leaving": "net.py, line 52: SystemExit: 0",
    "net.py:text": "the shape of the images is '388'; give (channels, height, width)",
    "net.py:two": "the shape of the images is 2; give (channels, height, width)",
    "net.py:two_channels": "have 1 or 3 channels, and those of this net have 2",
    "net.py:number": "number() gives a int without process",
    "net.py:absent": "net.py has no function absent",
    "absent.py:make": "there is no file absent.py",
    "syntax.py:make": "syntax.py, line 2: SyntaxError",
    "net.py:unknown": "has no identity; give it one",
    "net.py:shapeless": "the shape of the images is None; give (channels, height, width)",
    "net.py": "write net.py:make, with the name of its function",
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_file_is_one_sentence(name, net_file, run):
    Path("syntax.py").write_text("x = 1\ndef make(:\n")
    code, out, err = run("generate", "--model", name, "--plan", "2", "--seeds", "0", "--out", "images")
    assert (code, out) == (2, "")
    assert BAD[name] in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list(Path().glob("images/*/*.png"))


def test_a_net_has_no_default_plan(net_file, run):
    code, _, err = run("generate", "--model", "net.py:make", "--seeds", "0", "--out", "images")
    assert (code, err.count("--plan is missing: a plan suits a model, and 'net.py:make' has no default")) == (2, 1)


@pytest.mark.parametrize("option", [("--D", "128"), ("--dtype", "float16")])
def test_options_of_checkpoints_are_refused(option, net_file, run):
    words = ("generate", "--model", "net.py:make", "--plan", "2", "--seeds", "0", "--out", "images")
    code, _, err = run(*words, *option)
    assert code == 2
    assert f"{option[0]} is for checkpoints" in err
