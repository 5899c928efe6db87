"""Every command that writes, ended at any moment, and crowds of runs on one output; for a test and `at_scale.py`."""

import hashlib
import itertools
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import chdir, suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.extend(str(Path(__file__).parents[1] / each) for each in ("", "images", "text_to_image"))

import torch

from copies import TORCHRUN, start
from sweeps import made_up, results_file, tiny_files
from tiny import image_folder, pictures

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
MODEL = ("--model", "tiny.safetensors")
TRUST = ("--detector", "tiny.pt", "--trust-detector")
MEASURE = ("--reference", "ref.npz", *TRUST)
SLOW = "8 [6,2,0.5,3]"
DRAW = (*MODEL, "--batch", 4, "--seeds", "0-23")
TRAIN = ("--channels", 8, "--channel-mult", "1,1", "--blocks", 1, "--images", 1600, "--batch", 32)
TUNE = ("--images", 20, "--race-images", 80, "--confirm-images", 20, "--trials", 3, "--no-rises")
PROMPTS = ("--model", "sd", "--prompts", "prompts.csv", "--batch", 2)
COMMANDS = {
    "generate folder": ("generate", *DRAW, "--plan", SLOW, "--out", "out"),
    "generate zip": ("generate", *DRAW, "--plan", SLOW, "--out", "out.zip"),
    "evaluate": ("evaluate", *DRAW, *MEASURE, "--plan", SLOW, "--plan", "20"),
    "sweep": ("sweep", *MODEL, "--batch", 4, *MEASURE, "--plans", "plans.txt", "--images", 24, "--out", "out"),
    "train": ("train", "data", "--out", "out", "--parametrization", "edm", *TRAIN, "--save-minutes", "0.002"),
    "tune": ("tune", *MODEL, *MEASURE, "--nfe", 4, *TUNE, "--out", "out"),
    "reference": ("reference", "data", *TRUST, "--batch", 1, "--out", "out.npz"),
    "text generate folder": ("text", "generate", *PROMPTS, "--scheduler", "ddpm", "--steps", 20, "--out", "out"),
    "text generate zip": ("text", "generate", *PROMPTS, "--scheduler", "ddpm", "--steps", 20, "--out", "out.zip"),
    "text compare": (
        *("text", "compare", *PROMPTS, "--reference", "ref16.npz", *TRUST, "--clip", "clip", "--metrics", "fd,clip"),
        *("--guidance", "2,5", "--sampler", "ddim:5", "--sampler", "ddpm:5", "--out", "out"),
    ),
    "text score": ("text", "score", "drawn", "--prompts", "prompts.csv", "--clip", "clip", "--metrics", "clip"),
    "text preview": (
        *("text", "preview", "--model", "sd", "--prompt", "a cat", "--seeds", "0-1"),
        *("--sampler", "ddim:5", "--sampler", "restart:5 [3,2,0.1,2.0]", "--out", "out.png"),
    ),
    "text coco": (
        *("text", "coco", "captions.json", "--images", 300, "--unique-images"),
        *("--source", "data", "--resolution", 8, "--out", "out"),
    ),
    "dataset folder": ("dataset", "many", "out", "--workers", 2),
    "dataset zip": ("dataset", "many", "out.zip", "--workers", 2),
    "figure": ("figure", "results/results.jsonl", "--out", "out.pdf"),
    "report": ("report", "results", "--out", "out.html"),
    "demo": ("demo", "--seeds", "0", "--out", "out.png"),
    "convert": ("model", "convert", "tiny.safetensors", "out.safetensors"),
    "push": ("model", "push", "tiny.safetensors", "out", "--license", "mit", "--plan", "20", "--seeds", "0-5"),
}
"""Those that write, by a name of ours."""
RANKED = tuple(COMMANDS)[:11]
"""Those that take several processes, too."""
ONCE = {"text coco", "dataset folder", "dataset zip", "convert", "push"}
"""Those that refuse an output that is there."""
ADDING = {"text score"}
"""Those that add a line each time."""
WITH_DIFFUSERS = tuple(name for name in COMMANDS if name.startswith("text ") and name != "text coco")
_UNTIMED = ("seconds", "time", "drawn", "device", "cost")


def make_files(folder: Path) -> None:
    """What the commands read."""
    with chdir(folder):
        tiny_files(folder)
        Path("plans.txt").write_text(f"{SLOW}\n20\n")
        image_folder(Path("data"), pictures(400))
        image_folder(Path("many"), pictures(3000))
        Path("results").mkdir()
        results_file(*made_up(), name="results/results.jsonl")
        images = [{"id": number, "file_name": f"{number:04d}.png"} for number in range(400)]
        captions = [{"image_id": number, "id": number, "caption": f"picture {number}"} for number in range(400)]
        Path("captions.json").write_text(json.dumps({"images": images, "annotations": captions}))


def make_pipeline(folder: Path) -> None:
    """What the commands of `WITH_DIFFUSERS` read."""
    from tiny_folders import sd_folder

    from tiny_clip import clip_folder

    with chdir(folder):
        sd_folder(Path("sd"))
        clip_folder(Path("clip"))
        Path("prompts.csv").write_text("caption\n" + "".join(f"a {what}\n" for what in "abcdefghijklmnopqrstuvwx"))
        image_folder(Path("drawn"), pictures(24, size=16))
        Path("large").mkdir()
        tiny_files(Path("large"), size=16)
        Path("large/ref.npz").replace("ref16.npz")


def command(name: str, ranks: int = 1) -> tuple:
    launcher = (*TORCHRUN, f"--nproc_per_node={ranks}") if ranks > 1 else ()
    return (*launcher, "-m", "restart_sampling", *COMMANDS[name])


def _made() -> list[Path]:
    return [path for path in Path().iterdir() if path.name.startswith(("out", "results.jsonl", ".out", ".results"))]


def _remove() -> None:
    for path in _made():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def hashes() -> dict[str, str]:
    """Of all files that were made; what depends on the clock is left out."""
    files = itertools.chain.from_iterable(path.rglob("*") if path.is_dir() else [path] for path in _made())
    return {str(path): _digest(path) for path in files if path.is_file() and _is_steady(path)}


def _is_steady(path: Path) -> bool:
    """Whether the file does not depend on when the run was saved, or on how long its parts took."""
    pictures = path.name.startswith("samples-") and path.name != "samples-1600.png"
    return not pictures and path.name not in ("loss.png", "measured.jsonl", "trials.journal")


def _digest(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "results.jsonl":
        content = json.dumps([_untimed(json.loads(line)) for line in content.splitlines()]).encode()
    elif path.name.startswith("plan-"):
        content = json.dumps(_untimed(json.loads(content))).encode()
    elif path.name == "state.pt":
        content = _flat(torch.load(path, weights_only=True)["trainer"])
    elif path.name == "loss.jsonl":  # how many steps are a line is a matter of their speed
        images = [json.loads(line)["images"] for line in content.splitlines()]
        if images != sorted(set(images)):
            return "images in no order"
        content = str(images[-1]).encode()
    return hashlib.sha256(content).hexdigest()


def _untimed(value: object) -> object:
    if isinstance(value, dict):
        return {key: _untimed(each) for key, each in value.items() if key not in _UNTIMED}
    return value


def _flat(state: object) -> bytes:
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    if isinstance(state, dict):
        return b"".join(str(key).encode() + _flat(value) for key, value in state.items())
    return repr(state).encode()


def _without_locks(files: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if not name.endswith(".lock.partial")}


def _partials() -> list[str]:
    return [str(path) for path in Path().rglob(".*.partial")]


@dataclass
class Moment:
    """What became of a run that was ended.

    Attributes:
        seconds: when.
        ended: whether it still ran then.
        writing: whether there was something of it, but not all.
        fault: what is wrong; None: nothing.
    """

    seconds: float
    ended: bool = False
    writing: bool = False
    fault: str | None = None


class Case:
    """A command on so many processes in the current folder, and what it makes undisturbed.

    Args:
        name: of `COMMANDS`.
        ranks: processes.
    """

    def __init__(self, name: str, ranks: int) -> None:
        self.name, self.ranks = name, ranks
        before = time.monotonic()
        self._finish()
        self.seconds = time.monotonic() - before
        self.whole = hashes()

    def ended(self, number: signal.Signals, moments: int, part: int = 0) -> Iterator[Moment]:
        """Ends it at so many moments by a signal, and goes on."""
        chance = random.Random(f"{self.name} {self.ranks} {number} {part}")
        for _ in range(moments):
            moment = Moment(chance.uniform(0, 1) * self.seconds)
            try:
                self._end_at(moment, number)
            except AssertionError as error:
                moment.fault = str(error)
            yield moment

    def _end_at(self, moment: Moment, number: signal.Signals) -> None:
        _remove()
        process = start(*command(self.name, self.ranks))
        time.sleep(moment.seconds)
        if process.poll() is None:
            moment.ended = True
            stderr = end(process, number)
            moment.writing = bool(_made()) and hashes() != self.whole
            # torchrun has a traceback of its own, which is not ours to keep back.
            forbidden = "restart_sampling/" if self.ranks > 1 else "Traceback"
            assert number == signal.SIGKILL or forbidden not in stderr, f"a traceback: {stderr}"
        else:
            process.communicate()
        if self.name in ADDING and hashes() == self.whole:
            return
        if self.name in ONCE and any(path.name.startswith("out") for path in _made()):
            if self.name != "text coco" or Path("out/subset.csv").exists():
                assert _without_locks(hashes()) == self.whole, "a part stands for the whole"
                again = start(*command(self.name, self.ranks))
                _, stderr = again.communicate(timeout=300)
                assert again.returncode == 2, stderr
                assert not _partials(), f"left: {_partials()}"
                return
            for path in Path("out").glob("subset*"):  # as the refusal asks
                path.unlink()
        self._finish()
        now = hashes()
        assert now == self.whole, f"differs: {sorted(set(now.items()) ^ set(self.whole.items()))[:6]}"
        assert not _partials(), f"left: {_partials()}"

    def _finish(self) -> None:
        process = start(*command(self.name, self.ranks))
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr


def end(process, number: signal.Signals) -> str:
    """Sends the signal to the process and to all that it started; a kill of torchrun alone would leave its ranks."""
    with suppress(OSError):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for each in (*children, process.pid):
            with suppress(ProcessLookupError):
                os.kill(int(each), number)
    _, stderr = process.communicate(timeout=120)
    return stderr


class Crowd:
    """Pairs of runs on one output.

    Args:
        out: a folder, or a zip.
        other: the plan of the second; that of the first is `SLOW`.
    """

    def __init__(self, out: str, other: str) -> None:
        self.plans = (SLOW, other)
        self.words = {plan: ("generate", *DRAW, "--plan", plan, "--out", out) for plan in self.plans}
        self.whole = {}
        for plan, words in self.words.items():
            _remove()
            _, stderr = start("-m", "restart_sampling", *words).communicate(timeout=300)
            self.whole[plan] = hashes()
            assert self.whole[plan], stderr

    def meet(self, delay: float) -> tuple[int, int]:
        """Starts both, the second so many seconds later; returns their exit codes, or raises AssertionError."""
        _remove()
        first = start("-m", "restart_sampling", *self.words[self.plans[0]])
        time.sleep(delay)
        second = start("-m", "restart_sampling", *self.words[self.plans[1]])
        said = [process.communicate(timeout=300)[1] for process in (first, second)]
        codes = (first.returncode, second.returncode)
        assert not any("Traceback" in each for each in said), said
        assert codes in ((0, 2), (2, 0)) or (codes == (0, 0) and self.plans[0] == self.plans[1]), said
        winner = self.plans[codes.index(0)]
        assert hashes() == self.whole[winner], said
        again = start("-m", "restart_sampling", *self.words[winner]).communicate(timeout=300)[1]
        assert "is complete" in again, again
        assert not _partials(), _partials()
        return codes
