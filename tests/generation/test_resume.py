"""`generate` is killed at any moment, on any number of processes: the same command goes on, to the same bytes."""

import io
import json
import os
import random
import shutil
import signal
import time
import zipfile
from pathlib import Path

import pytest

from copies import TORCHRUN, start, wait_for
from restart_sampling.base.errors import InputError
from restart_sampling.base.files import is_partial
from restart_sampling.generation.store import BlockStore
from tiny_model import tiny_model_file

# Writes a file in two halves, so that there is time to kill it in between, and says who it is.
SLOW = """
import os
import time
from pathlib import Path

import restart_sampling.generation.store as store
from restart_sampling.cli import main

encode = store.encode_png
pause = float(os.environ.get("PAUSE", 0.02))


def slow_encode(image):
    time.sleep(pause)
    return encode(image)


def slow_write(path, content):
    with path.open("wb", buffering=0) as file:
        file.write(content[: len(content) // 2])
        time.sleep(pause)
        file.write(content[len(content) // 2 :])


store.encode_png = slow_encode
Path.write_bytes = slow_write
Path(f"pid-{os.environ.get('RANK', 0)}").write_text(str(os.getpid()))
main()
"""

SEEDS = 26
BATCH = 4
BLOCKS = 7
KINDS = ("images", "images.zip")


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with the model and the slow command."""
    place = tmp_path_factory.mktemp("made")
    tiny_model_file(place / "tiny.safetensors")
    (place / "slow.py").write_text(SLOW)
    return place


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    for name in ("tiny.safetensors", "slow.py"):
        shutil.copy(made / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(out, *more, seeds=SEEDS, batch=BATCH, plan="2 [2,1,0.5,3]"):
    given = {"--model": "tiny.safetensors", "--plan": plan, "--seeds": f"0-{seeds - 1}", "--batch": batch}
    return ["generate", *(str(word) for pair in given.items() for word in pair), "--out", str(out), *more]


def generate(run, out, *more, **options):
    """In this process: its line of JSON."""
    code, stdout, stderr = run(*words(out, "--json", *more, **options))
    assert code == 0, stderr
    return json.loads(stdout)


def contents(out):
    """Of a zip, or of a folder with all that is below: files that have their final name."""
    if out.suffix == ".zip":
        return {"": out.read_bytes()} if out.exists() else {}
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if is_whole(path)}


def is_whole(path):
    return path.is_file() and not is_partial(path)


def work(out):
    """Where the images of an unfinished run are."""
    return Path(f"{out}.blocks") if out.suffix == ".zip" else out


def records(out):
    return sorted(path for path in (work(out) / ".blocks").glob("*.json") if is_whole(path))


def partials(out):
    return list(work(out).rglob(".*.partial"))


def images(out):
    return list(work(out).glob("*/*.png"))


def check_nothing_is_partial(out, whole):
    """Of a folder, or of a zip with the folder that it is made from; `whole` are the contents of the finished one."""
    if out.suffix == ".zip":
        assert not out.exists() or out.read_bytes() == whole[""]
        with zipfile.ZipFile(io.BytesIO(whole[""])) as archive:
            whole = {name: archive.read(name) for name in archive.namelist()}
    for name, content in contents(work(out)).items():
        if name == "manifest.json":
            json.loads(content)
        else:
            assert content == whole[name], name


MOMENTS = {
    "in the first block": lambda out: images(out) and not records(out),
    "between blocks": lambda out: len(records(out)) >= 2,
    "in a write": lambda out: len(records(out)) >= 1 and partials(out),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_goes_on(kind, moment, place, run):
    out, undisturbed = Path(kind), Path(f"undisturbed-{kind}")
    assert generate(run, undisturbed)["drawn"] == SEEDS
    whole = contents(undisturbed)
    process = start("slow.py", *words(out))

    def the_moment():
        check_nothing_is_partial(out, whole)
        return MOMENTS[moment](out)

    wait_for(the_moment, process)
    process.kill()
    process.communicate()
    check_nothing_is_partial(out, whole)
    before = min(BATCH * len(records(out)), SEEDS)
    assert before < SEEDS
    assert not contents(out) if kind == "images.zip" else b'"complete": false' in contents(out)["manifest.json"]
    assert generate(run, out)["drawn"] == SEEDS - before
    assert contents(out) == whole
    assert not partials(out)
    assert not Path("images.zip.blocks").exists()


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        (2, "images.zip"),
        pytest.param(1, "images", marks=pytest.mark.slow),
        pytest.param(3, "images", marks=pytest.mark.slow),
    ],
)
def test_world_size_does_not_matter(size, kind, place, run):
    generate(run, f"undisturbed-{kind}")
    process = start(*TORCHRUN, f"--nproc_per_node={size}", "-m", "restart_sampling", *words(kind, "--json"))
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["drawn"] == SEEDS
    assert f"{size} x cpu" in stderr
    assert contents(Path(kind)) == contents(Path(f"undisturbed-{kind}"))


@pytest.mark.slow
def test_a_refusal_on_many_processes_is_one_sentence(place, run):
    generate(run, "images")
    for options, message in (({"seeds": 9}, "holds another run"), ({"plan": "1 ["}, "cannot read")):
        process = start(*TORCHRUN, "--nproc_per_node=2", "-m", "restart_sampling", *words("images", **options))
        _, stderr = process.communicate(timeout=60)
        sentences = [line for line in stderr.splitlines() if line.startswith("restart-sampling: ")]
        assert len(sentences) == 1, stderr
        assert message in sentences[0]


def test_a_killed_rank_ends_all_and_fewer_go_on(place, run):
    out = Path("images")
    generate(run, "undisturbed-images")
    process = start(*TORCHRUN, "--nproc_per_node=2", "slow.py", *words(out))
    wait_for(lambda: len(records(out)) >= 2, process)
    os.kill(int(Path("pid-1").read_text()), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not alive(int(Path("pid-0").read_text()))
    assert 0 < generate(run, out)["drawn"] < SEEDS
    assert contents(out) == contents(Path("undisturbed-images"))


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_at_random_moments(kind, place, run, capsys, monkeypatch):
    """One of two ranks, all processes, or torchrun itself."""
    seed = time.time_ns() % 10**6
    with capsys.disabled():
        print(f"seed {seed}")
    chance = random.Random(seed)
    monkeypatch.setenv("PAUSE", "0.02")
    out, undisturbed, count = Path(kind), Path(f"undisturbed-{kind}"), 1200
    generate(run, undisturbed, seeds=count)
    whole = contents(undisturbed)
    for _ in range(20):
        ranks = chance.choice([1, 2])
        launcher = (*TORCHRUN, "--nproc_per_node=2") if ranks == 2 else ()
        process = start(*launcher, "slow.py", *words(out, seeds=count))
        ready = [Path(f"pid-{rank}") for rank in range(ranks)]
        wait_for(lambda ready=ready: all(path.exists() and path.read_text() for path in ready), process)
        pids = [int(path.read_text()) for path in ready]
        time.sleep(chance.uniform(0, 3))
        target = chance.choice(["rank", "all", "launcher"])
        if target != "all":
            kill(process.pid if target == "launcher" else chance.choice(pids))
            check_nothing_is_partial(out, whole)
            time.sleep(chance.uniform(0, 2))  # others may go on for a while
        for pid in (process.pid, *pids):
            kill(pid)
        process.communicate(timeout=60)
        for path in ready:
            path.unlink()
        check_nothing_is_partial(out, whole)
    generate(run, out, seeds=count)
    assert contents(out) == whole
    assert generate(run, out, seeds=count)["drawn"] == 0


def kill(pid):
    if alive(pid):
        os.kill(pid, signal.SIGKILL)


def flip(path, where):
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "an image": lambda: flip(Path("images/000000/000009.png"), 100),
    "a missing image": lambda: Path("images/000000/000009.png").unlink(),
    "a record": lambda: Path("images/.blocks/000002.json").write_text("{"),
    "a label": lambda: relabel(Path("images/.blocks/000002.json")),
    "a missing record": lambda: Path("images/.blocks/000002.json").unlink(),
}


def relabel(record):
    content = json.loads(record.read_text())
    content["images"]["000000/000009.png"]["label"] = 7
    record.write_text(json.dumps(content))


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_made_again_and_only_that(damage, place, run):
    out = Path("images")
    generate(run, out)
    whole = contents(out)
    untouched = (out / "000000/000000.png").stat().st_mtime_ns
    DAMAGES[damage]()
    assert generate(run, out)["drawn"] == BATCH
    assert contents(out) == whole
    assert (out / "000000/000000.png").stat().st_mtime_ns == untouched


@pytest.mark.parametrize("damage", ["image", "truncated", "another block"])
def test_a_damaged_block_of_a_zip_is_made_again_and_only_that(damage, place, run, monkeypatch):
    out = Path("images.zip")
    generate(run, "undisturbed.zip")
    interrupt_at(3, run, out, monkeypatch)
    first, second, *_ = records(out)
    if damage == "image":
        flip(Path("images.zip.blocks/000000/000005.png"), 100)
    elif damage == "truncated":
        os.truncate(second, second.stat().st_size // 2)
    else:
        shutil.copy(first, second)
    left = len(records(out)) - 1
    assert generate(run, out)["drawn"] == SEEDS - left * BATCH
    assert out.read_bytes() == Path("undisturbed.zip").read_bytes()


def interrupt_at(blocks, run, out, monkeypatch):
    """Ctrl-C after so many blocks."""
    from restart_sampling.cli.progress import ProgressBar

    def advance(self, count):
        if len(records(out)) >= blocks:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ProgressBar, "_advance", advance)
        assert run(*words(out))[0] == 130
    assert blocks <= len(records(out)) < BLOCKS


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_run_is_checked_and_nothing_is_drawn(kind, place, run):
    out = Path(kind)
    generate(run, out)
    whole, when = contents(out), out.stat().st_mtime_ns
    code, _, stderr = run(*words(out))
    assert code == 0
    assert f"{kind} is complete: {SEEDS} images, there already and intact" in stderr
    assert (contents(out), out.stat().st_mtime_ns) == (whole, when)


@pytest.mark.parametrize("manifest", [{"batch": True}, {"batch": 1, "images": True}, {"batch": "1"}])
def test_a_manifest_whose_numbers_are_none_is_refused(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(json.dumps({"run": {}, "complete": True, **manifest}))
    (tmp_path / "000000").mkdir()
    with pytest.raises(InputError, match="is not a run of generate"):
        BlockStore(tmp_path, [(0,)], {}).check(1)


def test_a_zip_that_unpacks_to_far_more_than_it_is_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "out.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b'{"run": {}, "batch": 1, "complete": false}' + b" " * 2**27)
    store = BlockStore(tmp_path / "out.zip", [(0,)], {})
    with pytest.raises(InputError, match=r"out\.zip exists and is not a run of generate \(no readable manifest"):
        store.check(1)


def test_a_finished_zip_that_is_damaged_is_made_again(place, run):
    out = Path("images.zip")
    generate(run, out)
    whole = out.read_bytes()
    flip(out, 100)
    assert generate(run, out)["drawn"] == SEEDS
    assert out.read_bytes() == whole


def test_labels_that_are_missing_are_written_again(place, run):
    out = Path("images")
    generate(run, out)
    whole = contents(out)
    (out / "dataset.json").unlink()
    assert generate(run, out)["drawn"] == 0
    assert contents(out) == whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("first", [8, 10], ids=["whole blocks", "a part of a block"])
def test_more_seeds_draw_what_is_missing(first, kind, place, run):
    """A block that was cut short is drawn anew: a network rounds differently in batches of another size."""
    out, whole = Path(kind), Path(f"whole-{kind}")
    generate(run, whole)
    assert generate(run, out, seeds=first)["drawn"] == first
    assert generate(run, out)["drawn"] == SEEDS - 8
    assert contents(out) == contents(whole)
    code, _, stderr = run(*words(out, seeds=first))
    assert code == 2
    assert f'holds another run, with seeds "0-{SEEDS - 1}", not "0-{first - 1}"' in stderr


@pytest.mark.parametrize("content", [b"", bytes(300)], ids=["empty", "zeros"])
def test_an_empty_manifest_locks_no_folder_out(content, place, run):
    out = Path("images")
    out.mkdir()
    (out / "manifest.json").write_bytes(content)
    assert generate(run, out)["drawn"] == SEEDS


@pytest.mark.parametrize("kind", KINDS)
def test_another_batch_is_refused_where_blocks_are_done(kind, place, run, monkeypatch):
    out = Path(kind)
    interrupt_at(2, run, out, monkeypatch)
    code, _, stderr = run(*words(out, batch=5))
    assert code == 2
    assert stderr == (
        f"restart-sampling: {kind} holds images made with --batch 4, not 5; give --batch 4 to go on, "
        "or choose another --out\n"
    )
    for record in records(out):
        record.unlink()
    assert generate(run, out, batch=5)["drawn"] == SEEDS


@pytest.mark.parametrize("kind", KINDS)
def test_another_run_is_refused_where_one_is_unfinished(kind, place, run, monkeypatch):
    out = Path(kind)
    interrupt_at(1, run, out, monkeypatch)
    for options, message in (({"plan": "3"}, 'plan "2 [2,1,0.5,3]", not "3"'), ({"seeds": 9}, 'seeds "0-25"')):
        code, _, stderr = run(*words(out, **options))
        assert code == 2
        assert f"holds another run, with {message}" in stderr
        assert len(stderr.splitlines()) == 1


LIMITED = """
import resource
import sys

from restart_sampling.cli import main

resource.setrlimit(resource.RLIMIT_FSIZE, 2 * (int(sys.argv[1]),))
main(sys.argv[2:])
"""
LIMITS = {
    "an image": ("images", 1200),
    "a block": ("images.zip", 1200),
    "the whole": ("images.zip", 20_000),
}


@pytest.mark.parametrize("case", LIMITS)
def test_a_full_disk_is_one_sentence_and_the_same_command_goes_on(case, place, run):
    """A file that may not grow any further fails as a full disk does, with another number."""
    kind, limit = LIMITS[case]
    tiny_model_file(Path("tiny.safetensors"), size=32)
    options = {"seeds": 10, "plan": "1"}
    process = start("-c", LIMITED, limit, *words(kind, **options))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 2, stderr
    *_, message = stderr.splitlines()
    assert message.startswith(f"restart-sampling: {kind}")
    assert message.endswith("cannot be written (File too large); make room, then the same command goes on from here")
    assert "Traceback" not in stderr
    assert not partials(Path(kind))
    assert generate(run, kind, **options)["drawn"] == (0 if case == "the whole" else 10)
    generate(run, f"undisturbed-{kind}", **options)
    assert contents(Path(kind)) == contents(Path(f"undisturbed-{kind}"))
