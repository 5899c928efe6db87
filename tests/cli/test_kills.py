"""Every command that writes is ended at any moment, by any signal, and crowds of runs meet on one output."""

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tiny import image_folder, pictures
from tiny_model import TORCHRUN, start

pytestmark = pytest.mark.slow

MOMENTS = int(os.environ.get("KILLS", "20"))
PAIRS = int(os.environ.get("PAIRS", "100"))
MODEL = ("--model", "tiny.safetensors", "--batch", "4")
TRUST = ("--detector", "tiny.pt", "--trust-detector")
MEASURE = ("--reference", "ref.npz", *TRUST)
SLOW = "8 [6,2,0.5,3]"
TRAIN = ("--channels", 8, "--channel-mult", "1,1", "--blocks", 1, "--images", 3200, "--batch", 32)
COMMANDS = {
    "folder": ("generate", *MODEL, "--plan", SLOW, "--seeds", "0-99", "--out", "out"),
    "zip": ("generate", *MODEL, "--plan", SLOW, "--seeds", "0-99", "--out", "out.zip"),
    "evaluate": ("evaluate", *MODEL, *MEASURE, "--plan", SLOW, "--plan", "20", "--seeds", "0-99"),
    "sweep": ("sweep", *MODEL, *MEASURE, "--plans", "plans.txt", "--images", 40, "--out", "out"),
    "train": ("train", "data", "--out", "out", "--parametrization", "edm", *TRAIN, "--save-minutes", "0.002"),
    "reference": ("reference", "data", *TRUST, "--batch", 1, "--out", "out.npz"),
    "dataset folder": ("dataset", "data", "out", "--workers", 2),
    "dataset zip": ("dataset", "data", "out.zip", "--workers", 2),
}
ALONE = {"dataset folder", "dataset zip"}  # not for many ranks
UNTIMED = ("seconds", "time", "drawn", "device")


@pytest.fixture
def place(place):
    Path("plans.txt").write_text(f"{SLOW}\n20\n")
    image_folder(Path("data"), pictures(600))
    return place


def command(name, ranks):
    launcher = (*TORCHRUN, f"--nproc_per_node={ranks}") if ranks > 1 else ()
    return (*launcher, "-m", "restart_sampling", *COMMANDS[name])


def made():
    return [path for path in Path().iterdir() if path.name.startswith(("out", "results", ".out", ".results"))]


def remove():
    for path in made():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def hashes():
    """Of all files that were made; what depends on the clock is left out."""
    files = itertools.chain.from_iterable(path.rglob("*") if path.is_dir() else [path] for path in made())
    return {str(path): digest(path) for path in files if path.is_file() and steady(path)}


def steady(path):
    """Whether the file does not depend on when the run was saved."""
    return (path.name != "loss.png" and not path.name.startswith("samples-")) or path.name == "samples-3200.png"


def digest(path):
    content = path.read_bytes()
    if path.name == "results.jsonl":
        lines = [json.loads(line) for line in content.splitlines()]
        content = json.dumps([{key: line[key] for key in line if key not in UNTIMED} for line in lines]).encode()
    elif path.name == "state.pt":
        content = flat(torch.load(path, weights_only=True)["trainer"])
    elif path.name == "loss.jsonl":  # how many steps are a line is a matter of their speed
        images = [json.loads(line)["images"] for line in content.splitlines()]
        assert images == sorted(set(images))
        content = str(images[-1]).encode()
    return hashlib.sha256(content).hexdigest()


def flat(state):
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    if isinstance(state, dict):
        return b"".join(str(key).encode() + flat(value) for key, value in state.items())
    return repr(state).encode()


def check_done(name, ranks):
    process = start(*command(name, ranks))
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr


def end(process, number):
    """Sends the signal to the process and to all that it started; a kill of torchrun alone would leave its ranks."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for each in (*children, process.pid):
        try:
            os.kill(int(each), number)
        except ProcessLookupError:
            continue
    _, stderr = process.communicate(timeout=60)
    return stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", COMMANDS)
def test_an_ended_run_goes_on_to_the_same_bytes(name, ranks, number, place):
    if ranks > 1 and name in ALONE:
        pytest.skip("it is for one process")
    before = time.monotonic()
    check_done(name, ranks)
    whole, seconds = hashes(), time.monotonic() - before
    chance = random.Random(f"{name} {ranks} {number}")
    for _ in range(MOMENTS):
        remove()
        process = start(*command(name, ranks))
        moment = chance.uniform(0.3, 1) * seconds  # before that, it starts
        time.sleep(moment)
        if process.poll() is None:
            stderr = end(process, number)
            assert "restart_sampling/" not in stderr or number == signal.SIGKILL, stderr  # no traceback
        else:
            process.communicate()
        if name in ALONE and made() and process.returncode == 0:
            continue  # it was done
        if not (name in ALONE and any(path.name in ("out", "out.zip") for path in made())):
            check_done(name, ranks)
        assert hashes() == whole, moment
        assert not list(Path().rglob(".*.partial")), moment


@pytest.mark.parametrize("out", ["out", "out.zip"])
@pytest.mark.parametrize("other", [SLOW, "20"], ids=["equal", "different"])
def test_a_crowd_on_one_output_never_mixes(out, other, place):
    plans = (SLOW, other)
    words = {plan: ("generate", *MODEL, "--plan", plan, "--seeds", "0-99", "--out", out) for plan in plans}
    whole = {}
    for plan in words:
        remove()
        alone = start(*package(words[plan]))
        _, stderr = alone.communicate(timeout=120)
        assert alone.returncode == 0, stderr
        whole[plan] = hashes()
    chance = random.Random(out + other)
    outcomes = []
    for _ in range(PAIRS // 4):
        remove()
        first = start(*package(words[plans[0]]))
        time.sleep(chance.choice((0, 0, 0.02, 0.2, 1)))
        second = start(*package(words[plans[1]]))
        said = [process.communicate(timeout=120)[1] for process in (first, second)]
        codes = (first.returncode, second.returncode)
        outcomes.append(codes)
        assert not any("Traceback" in each for each in said), said
        assert codes in ((0, 2), (2, 0)) or (codes == (0, 0) and plans[0] == plans[1]), said
        winner = plans[codes.index(0)]
        assert hashes() == whole[winner], said
        again = start(*package(words[winner]))
        assert "is complete" in again.communicate(timeout=120)[1]
        assert not list(Path().rglob(".*.partial"))
    print({codes: outcomes.count(codes) for codes in set(outcomes)})


def package(words):
    return ("-m", "restart_sampling", *words)
