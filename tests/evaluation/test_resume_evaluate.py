"""A streamed evaluation is killed: the same command goes on, to the same figures."""

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise, product
from pathlib import Path
from threading import Barrier

import pytest
import torch

from copies import TORCHRUN, start, wait_for, write_slow
from restart_sampling.base.lock import locked
from restart_sampling.base.ranks import Ranks
from restart_sampling.base.tensors import save_tensors
from restart_sampling.comparison import run as comparison
from restart_sampling.comparison.evaluate import plan_rows
from restart_sampling.comparison.named_plans import NamedPlan
from restart_sampling.comparison.run import Comparison, own_batches
from restart_sampling.evaluation import measure as measuring
from restart_sampling.evaluation.collect import Collector
from restart_sampling.evaluation.detectors import load_detector
from restart_sampling.evaluation.partial_sums import PartialSums
from restart_sampling.evaluation.setup import open_setup
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.from_network import from_edm
from restart_sampling.sampling.plan import Plan
from tiny import detector_file, image_folder, pictures
from tiny_model import tiny_model_file

IMAGES = 90
EVALUATE = (
    *("evaluate", "--model", "tiny.safetensors", "--plan", "2 [2,1,0.5,3]", "--seeds", f"0-{IMAGES - 1}"),
    *(
        "--batch",
        "4",
        "--reference",
        "ref.npz",
        "--detector",
        "tiny.pt",
        "--trust-detector",
        "--metrics",
        "fd,pr,per-class",
        "--json",
    ),
)
FOLDER = Path("results.jsonl.partial")


@pytest.fixture
def place(tmp_path, monkeypatch, run, one_thread):
    monkeypatch.chdir(tmp_path)
    tiny_model_file(tmp_path / "tiny.safetensors")
    detector_file(tmp_path / "tiny.pt")
    write_slow("restart_sampling.evaluation.collect:Collector", "add", 0.05)
    image_folder(tmp_path / "data", pictures(40), classes=4)
    assert (
        run("reference", "data", "--out", "ref.npz", "--detector", "tiny.pt", "--trust-detector", "--features")[0] == 0
    )
    return tmp_path


def evaluate(run, *more):
    code, out, err = run(*EVALUATE, *more)
    assert code == 0, err
    return json.loads(out), err


def saved():
    """The files, each with its inode: it is another one at each save."""
    return {(path.name, path.stat().st_ino) for path in FOLDER.glob("*.pt")}


def kill_in_the_middle(*launcher, saves=3):
    """Kills all processes when they have saved so many times."""
    process = start(*launcher, "slow.py", *EVALUATE)
    seen = set()

    def enough():
        try:
            seen.update(saved())
        except FileNotFoundError:  # replaced in between
            return False
        return len(seen) >= saves

    wait_for(enough, process)
    for path in Path().glob("pid-*"):
        os.kill(int(path.read_text()), signal.SIGKILL)
    process.communicate(timeout=60)
    assert FOLDER.exists()
    assert not Path("results.jsonl").exists()


def check_equal(result, whole):
    """But for the last digits, which depend on the number of processes."""
    assert result["pixels_sha256"] == whole["pixels_sha256"]
    for key in ("frechet_distance", "frechet_distance_error", "precision", "recall"):
        assert result[key] == pytest.approx(whole[key], rel=1e-9), key
    assert result["frechet_distance_per_class"] == pytest.approx(whole["frechet_distance_per_class"], rel=1e-9)


def test_a_killed_evaluation_goes_on(place, run):
    whole, stderr = evaluate(run, "--results", "undisturbed.jsonl")
    assert whole["drawn"] == IMAGES
    assert "earlier start" not in stderr
    kill_in_the_middle()
    result, stderr = evaluate(run)
    assert 0 < result["drawn"] < IMAGES
    assert f"{IMAGES - result['drawn']} images from an earlier start" in stderr
    check_equal(result, whole)
    assert not FOLDER.exists()


@pytest.mark.parametrize("until", [(measuring, "compute_metrics"), (comparison, "append_result")])
def test_one_that_had_drawn_all_goes_on_to_the_same_result(until, place, run, monkeypatch):
    whole, _ = evaluate(run, "--results", "undisturbed.jsonl")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as at_the_end:
        at_the_end.setattr(*until, interrupt)
        assert run(*EVALUATE)[0] == 130
    result, _ = evaluate(run)
    assert result["drawn"] == 0
    for key in ("drawn", "seconds", "time"):
        del result[key], whole[key]
    assert result == whole


def evaluate_on(ranks, run, *more):
    if ranks == 1:
        return evaluate(run, *more)
    process = start(*TORCHRUN, f"--nproc_per_node={ranks}", "-m", "restart_sampling", *EVALUATE, *more)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    return json.loads(stdout), stderr


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3), (2, 2)])
def test_a_killed_evaluation_goes_on_with_other_processes(before, after, place, run):
    whole, _ = evaluate_on(after, run, "--results", "undisturbed.jsonl")
    kill_in_the_middle(*((*TORCHRUN, f"--nproc_per_node={before}") if before > 1 else ()), saves=2 + before)
    result, stderr = evaluate_on(after, run)
    assert 0 < result["drawn"] < IMAGES
    assert f"{IMAGES - result['drawn']} images from an earlier start" in stderr
    check_equal(result, whole)
    if before == after:
        assert result["frechet_distance"] == whole["frechet_distance"]
    assert not FOLDER.exists()


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks that are threads of this process; they meet at the barrier, and see what each brought."""

    barrier: Barrier = None
    brought: dict = None

    def gather(self, value):
        self.brought[self.rank] = value
        self.barrier.wait()
        values = [self.brought[rank] for rank in range(self.size)]
        self.barrier.wait()
        return values

    def all_reduce(self, tensor):
        tensor.copy_(sum(self.gather(tensor.clone())))


@pytest.mark.parametrize(("size", "blocks"), [(1, (6,)), (2, (3, 3))])
def test_a_line_does_not_depend_on_what_was_saved(size, blocks, place, monkeypatch):
    """Each process had saved any number of its blocks, all of them too: the line is the same to the last digit."""
    setup = open_setup("ref.npz", "tiny.pt", ("fd", "pr"), 1, torch.device("cpu"), trust_detector=True)
    net = from_edm(lambda x, sigma: x * 0.5, 0.002, 80, identity="half")
    draw = partial(NetDrawing, net, batch=4, shape=(3, 16, 16))  # the reference has 8x8, of which a note tells
    (row,) = plan_rows([NamedPlan.of(Plan.parse("3"))], draw, range(22), "0-21", "half")
    barrier, brought = Barrier(size), {}

    def measure(rank):
        ranks = Threads(rank, size, torch.device("cpu"), barrier=barrier, brought=brought)
        (outcome,) = Comparison(setup, ranks, 4, Path("results.jsonl")).run([row])
        return outcome.result

    def line():
        with ThreadPoolExecutor(size) as threads:
            found, *_ = threads.map(measure, range(size))
        drawn = found.pop("drawn")
        Path("results.jsonl").unlink()
        return drawn, {name: value for name, value in found.items() if name not in ("seconds", "time")}

    def save(self, state):
        state = state()
        save_tensors(Path(f"saved/{len(state['places'])}-{self._own.name}"), state)

    monkeypatch.setattr(PartialSums, "save_if_due", save)
    drawn, whole = line()
    assert (drawn, whole["nfe_counted"], len(whole["notes"])) == (22, row.drawing.nfe, 1)
    monkeypatch.setattr(PartialSums, "save_if_due", lambda *_: None)
    saved = [sorted(Path("saved").glob(f"*.{rank}-of-*")) for rank in range(size)]
    assert [len(files) for files in saved] == [*blocks]
    for chosen in product(*([None, *files] for files in saved)):
        FOLDER.mkdir()
        files = [file for file in chosen if file]
        for file in files:
            shutil.copy(file, FOLDER / file.name.partition("-")[2])
        assert line() == (22 - sum(int(file.name.partition("-")[0]) for file in files), whole)


def test_a_finished_plan_is_finished(place, run, monkeypatch):
    """Killed while it draws the second of two plans; then the same command again when both are there."""
    more, locks = ("--plan", "3 solver=ddpm"), []
    monkeypatch.setattr(comparison, "locked", lambda path, *words: locks.append(path) or locked(path, *words))
    first, _ = evaluate(run)
    line = Path("results.jsonl").read_text()
    both, stderr = evaluate(run, *more)
    assert Path("results.jsonl").read_text().startswith(line)
    assert "2 [2,1,0.5,3] on tiny.safetensors: NFE 5: it is in results.jsonl already" in stderr
    check_equal(both["results"][0], first)
    assert both["results"][1]["drawn"] == IMAGES
    whole = Path("results.jsonl").read_text()
    assert len(whole.splitlines()) == 2
    assert len(locks) == 2
    for path in locks:
        path.touch()  # as a kill after the last line leaves it
    again, stderr = evaluate(run, *more)
    assert not any(path.exists() for path in locks)
    assert Path("results.jsonl").read_text() == whole
    assert [result["plan"] for result in again["results"]] == ["2 [2,1,0.5,3]", "3 solver=ddpm"]
    assert stderr.count("already") == 2


def test_a_plan_that_fails_does_not_end_the_others(place, run, monkeypatch):
    forward = Denoiser.forward

    def broken(self, x, sigma, *more, **named):
        return forward(self, x, sigma, *more, **named) * torch.where(sigma > 50, float("nan"), 1.0).reshape(-1, 1, 1, 1)

    monkeypatch.setattr(Denoiser, "forward", broken)
    words = [word for word in EVALUATE if word != "--json"]
    code, stdout, stderr = run(*words, "--plan", "2 sigma_max=40")
    assert code == 2
    assert "row '2 [2,1,0.5,3]' failed: the image of seed 0 is not finite" in stderr.splitlines()[-1]
    assert "2 sigma_max=40" in stdout
    (line,) = map(json.loads, Path("results.jsonl").read_text().splitlines())
    assert line["plan"] == "2 sigma_max=40"


def test_other_settings_do_not_take_up_the_sums(place, run):
    kill_in_the_middle(saves=1)
    result, _ = evaluate(run, "--guidance", "2")
    assert result["drawn"] == IMAGES
    assert FOLDER.exists()


class Sums:
    """Files as of two processes of one evaluation of 12 images."""

    def __init__(self, folder):
        self.folder = folder
        self.images = torch.from_numpy(pictures(12))
        self.detector = load_detector(str(detector_file(folder / "tiny.pt")), trust=True)

    def partial(self, rank, size=2):
        return PartialSums(self.folder / "partial", {"plan": "18"}, rank, size)

    def save(self, rank, *places):
        collector = Collector(self.detector, 12, 3)
        for place in places:
            collector.add(self.images[[place]], [place])
        self.partial(rank).save_if_due(collector.state)

    def load(self):
        """In one process."""
        first = self.partial(0, size=1)
        done = first.load(lambda tensor: [tensor])
        collector = Collector(self.detector, 12, 3)
        if first.earlier:
            collector.restore(first.earlier)
        return done, collector

    def files(self):
        return sorted((self.folder / "partial").glob("*.pt"))


@pytest.fixture
def sums(tmp_path):
    return Sums(tmp_path)


def test_sums_of_all_processes_become_those_of_the_first(sums):
    sums.save(0, 0, 5)
    sums.save(1, 3)
    done, collector = sums.load()
    assert done == {0, 3, 5}
    again, _ = sums.load()
    assert again == done
    assert len(sums.files()) == 1
    assert collector.size(lambda tensor: [tensor]) == (8, 8)
    whole = Collector(sums.detector, 12, 3)
    for place in (0, 3, 5):
        whole.add(sums.images[[place]], [place])
    for name, value in whole.moments.state().items():
        torch.testing.assert_close(collector.moments.state()[name], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("saved", [(0, 0), (1, 2), (3, 1)])
def test_where_two_processes_were_killed_does_not_matter(saved, sums):
    """Each had saved so many of its blocks; sums of floats depend on their order, and are the same to the bit."""
    drawing = NetDrawing(from_edm(lambda x, sigma: x * 0.5, 0.002, 80), "3", batch=4, shape=(3, 8, 8))

    def draw(rank, done=frozenset(), earlier=None, blocks=None):
        collector = Collector(sums.detector, 36, 3)
        if earlier:
            collector.restore(earlier)
        ranks = Ranks(rank, 2, torch.device("cpu"))
        for places, images, _ in islice(own_batches(drawing, range(36), ranks, done), blocks):
            collector.add(images, places)
        return collector

    whole = [draw(rank).state() for rank in (0, 1)]
    for rank, blocks in enumerate(saved):
        if blocks:
            sums.partial(rank).save_if_due(draw(rank, blocks=blocks).state)
    own = [sums.partial(rank) for rank in (0, 1)]
    done = frozenset().union(*(each.load(lambda tensor: [tensor]) for each in own))
    assert len(done) == 4 * sum(saved)
    for rank in (0, 1):
        state = draw(rank, done, own[rank].earlier).state()
        assert all(torch.equal(value, whole[rank][name]) for name, value in state.items())


def test_a_damaged_file_is_dropped(sums):
    sums.save(0, 0, 5)
    sums.save(1, 3)
    content = bytearray(sums.files()[0].read_bytes())
    content[len(content) // 2] ^= 1
    sums.files()[0].write_bytes(content)
    assert sums.load()[0] == {3}
    os.truncate(sums.files()[0], 100)
    assert sums.load()[0] == set()
    assert sums.files() == []


def test_of_files_with_the_same_image_the_larger_counts(sums):
    """So it is where a process was killed after it had put the files together, and before it removed them."""
    sums.save(0, 0, 5, 7)
    sums.save(1, 5, 7)
    sums.save(2, 9)
    assert sums.load()[0] == {0, 5, 7, 9}


def test_saving_takes_a_fiftieth_of_the_time_at_most(sums, monkeypatch):
    now = 0.0
    monkeypatch.setattr("restart_sampling.evaluation.partial_sums.time.monotonic", lambda: now)
    collector = Collector(sums.detector, 12, 3)
    collector.add(sums.images, range(12))
    partial, saves = sums.partial(0), []

    def state():
        nonlocal now
        saves.append(now)
        now += 0.1
        return collector.state()

    while now < 52:
        partial.save_if_due(state)
        now += 1
    assert 9 <= len(saves) <= 11
    assert all(later - earlier >= 5.1 - 1e-9 for earlier, later in pairwise(saves))
