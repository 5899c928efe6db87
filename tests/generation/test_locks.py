"""An output belongs to one run at a time, however that ends; what was mixed all the same is seen."""

import json
import os
import signal
from pathlib import Path

import pytest

from copies import TORCHRUN, start, wait_for
from restart_sampling.base.errors import InputError
from restart_sampling.base.lock import lock_beside, locked
from restart_sampling.generation.store import BlockStore

MODEL = ("--model", "tiny.safetensors")
MEASURE = ("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector")


def generate(out, plan="2", seeds="0-99", *more):
    return ("generate", *MODEL, "--plan", plan, "--seeds", seeds, "--batch", "4", "--out", out, *more)


def package(*words):
    return start("-m", "restart_sampling", *words)


def pair(first, second):
    """Two commands started together: exit codes, and what they said."""
    processes = [package(*words) for words in (first, second)]
    said = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], said


def contents(out):
    """Bytes of the files of a folder, or of one file."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in (out.rglob("*") if out.is_dir() else [out])
        if path.is_file()
    }


def leftovers(folder=Path()):
    return list(folder.rglob(".*.partial"))


def check_one_won(codes, said):
    assert sorted(codes) == [0, 2], said
    refused = said[codes.index(2)]
    assert len([line for line in refused.splitlines() if line.startswith("restart-sampling: ")]) == 1, refused
    assert "is being written by " in refused or "holds another run" in refused or "exists; remove it" in refused, (
        refused
    )
    assert "Traceback" not in refused
    assert not leftovers(), leftovers()


def test_the_lock_names_its_owner_and_goes_with_it(tmp_path):
    path = lock_beside(tmp_path / "out")
    refusal = rf"^out is being written by process {os.getpid()} on .+ since 20.+;"
    with locked(path, "out"), pytest.raises(InputError, match=refusal), locked(path, "out"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(path, "out"):
        pass


@pytest.mark.parametrize("out", [pytest.param("images", marks=pytest.mark.slow), "images.zip"])
def test_a_second_run_is_refused_until_the_first_is_killed(out, place, run):
    process = package(*generate(out, "60 [200,5,0.5,3]", "0-999"))
    lock = Path("images/.blocks/.lock.partial" if out == "images" else ".images.zip.lock.partial")
    wait_for(lambda: lock.exists() and lock.read_text().count("\n") == 3, process)
    before = lock.read_text()
    for plan in ("3", "60 [200,5,0.5,3]"):
        code, _, err = run(*generate(out, plan, "0-999"))
        assert code == 2
        assert f"{out} is being written by process {process.pid} on " in err or "holds another run" in err
    assert lock.read_text() == before
    process.kill()
    process.communicate()
    assert lock.exists()
    code, _, err = run(*generate("images.zip", "1", "0-3") if out == "images.zip" else generate(out, "1", "0-3"))
    assert code == 0 or "holds another run" in err, err
    assert not lock.exists()


@pytest.mark.parametrize("out", ["images", pytest.param("images.zip", marks=pytest.mark.slow)])
def test_two_different_runs_started_together_do_not_mix(out, place, run):
    alone = {}
    for plan in ("2", "3"):
        assert run(*generate(f"alone-{plan}-{out}", plan))[0] == 0
        alone[plan] = contents(Path(f"alone-{plan}-{out}"))
    codes, said = pair(generate(out, "2"), generate(out, "3"))
    check_one_won(codes, said)
    winner = "23"[codes.index(0)]
    assert contents(Path(out)) == {
        name.replace(f"alone-{winner}-", ""): bytes_ for name, bytes_ in alone[winner].items()
    }


def test_an_image_of_another_run_is_seen_and_drawn_again(place, run):
    """With its record, as two runs at once would leave it."""
    for out, plan in (("images", "2"), ("other", "3")):
        assert run(*generate(out, plan, "0-11"))[0] == 0
    whole = contents(Path("images"))
    for name in (
        "000000/000005.png",
        "000000/000004.png",
        "000000/000006.png",
        "000000/000007.png",
        ".blocks/000001.json",
    ):
        (Path("images") / name).write_bytes((Path("other") / name).read_bytes())
    code, out, _ = run(*generate("images", "2", "0-11", "--json"))
    assert (code, json.loads(out)["drawn"]) == (0, 4)
    assert contents(Path("images")) == whole


def test_a_run_whose_images_were_changed_meanwhile_does_not_finish(tmp_path):
    store = BlockStore(tmp_path / "out", [(0,)], {"plan": "2"})
    store.start({"run": {"plan": "2"}, "batch": 1})
    with pytest.raises(InputError, match="was changed by something else meanwhile"):
        store.finish({"run": {"plan": "2"}, "batch": 1})


@pytest.mark.slow
def test_a_sweep_and_the_rows_of_a_results_file_are_measured_by_one(place, run):
    Path("plans.txt").write_text("2\n3\n")
    sweep = ("sweep", *MODEL, *MEASURE, "--plans", "plans.txt", "--images", "40", "--batch", "4", "--out", "out")
    codes, said = pair(sweep, sweep)
    assert sorted(codes) in ([0, 0], [0, 2]), said  # the second may begin when the first has ended
    assert len(Path("out/results.jsonl").read_text().splitlines()) == 2
    evaluate = ("evaluate", *MODEL, *MEASURE, "--seeds", "0-79", "--batch", "4", "--plan")
    codes, said = pair((*evaluate, "2"), (*evaluate, "2"))
    assert sorted(codes) in ([0, 0], [0, 2]), said
    assert len(Path("results.jsonl").read_text().splitlines()) == 1
    codes, said = pair((*evaluate, "3"), (*evaluate, "4"))
    assert codes == [0, 0], said
    assert len(Path("results.jsonl").read_text().splitlines()) == 3
    assert not leftovers()


HANG = """
import os
import time

from restart_sampling.cli import main
from restart_sampling.generation.net_drawing import NetDrawing

if os.environ["RANK"] == "1":
    NetDrawing.draw = lambda *arguments: time.sleep(600)
main()
"""


def test_a_rank_that_hangs_is_named(place):
    Path("hang.py").write_text(HANG)
    words = generate("images", "2", "0-19", "--rank-timeout", "0.05")
    _, stderr = start(*TORCHRUN, "--nproc_per_node=2", "hang.py", *words).communicate(timeout=120)
    (line,) = (line for line in stderr.splitlines() if line.startswith("restart-sampling: "))
    assert line.startswith("restart-sampling: rank 1 of this run has done nothing for 0.05 minutes while others wait")
    assert not leftovers()


NAMED = """
import os
from pathlib import Path

from restart_sampling.cli import main

Path(f"pid-{os.environ['RANK']}").write_text(str(os.getpid()))
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [0, 1, None])
def test_an_interruption_under_torchrun_is_one_line(interrupted, place):
    """Of a rank, or of torchrun, whose own lines are not ours to change."""
    Path("named.py").write_text(NAMED)
    process = start(*TORCHRUN, "--nproc_per_node=2", "named.py", *generate("images", "60 [200,5,0.5,3]", "0-999"))
    wait_for(lambda: len(list(Path().glob("images/.blocks/*.json"))) >= 2, process)
    os.kill(process.pid if interrupted is None else int(Path(f"pid-{interrupted}").read_text()), signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    said = [line for line in stderr.splitlines() if "restart-sampling: " in line]
    assert said == ["restart-sampling: interrupted; the same command goes on from here"]
    assert "restart_sampling/" not in stderr  # no traceback of ours
    assert not leftovers()
