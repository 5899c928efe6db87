"""Runs of `generate` that version 0.1.0 finished, or was killed in, are taken up as its own."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from old_files import BATCH, FILES, SEEDS, check_images, generate, images, tree, without

from arguments import instead

KINDS = ("", ".zip")
OWN = ("device", "versions", "complete", "model", "classes")
"""In a manifest, of the process that wrote it last, or new; all else defines the images."""


def draw(run, place: Path, out: Path) -> int:
    """How many images the same command draws."""
    code, stdout, stderr = run(*generate(place, out))
    assert code == 0, stderr
    return json.loads(stdout)["drawn"]


def manifest(out: Path) -> dict:
    if out.suffix != ".zip":
        return json.loads((out / "manifest.json").read_text())
    with zipfile.ZipFile(out) as archive:
        return json.loads(archive.read("manifest.json"))


def labels(out: Path) -> bytes:
    if out.suffix != ".zip":
        return (out / "dataset.json").read_bytes()
    with zipfile.ZipFile(out) as archive:
        return archive.read("dataset.json")


def check_whole(out: Path, place: Path, run) -> None:
    """All is there, as it was recorded, and as a run without an interruption makes it."""
    recorded, undisturbed = FILES / f"generate/finished{out.suffix}", place / f"undisturbed{out.suffix}"
    draw(run, place, undisturbed)
    check_images(out, recorded, undisturbed)
    assert labels(out) == labels(recorded)
    assert without(manifest(out), *OWN) == without(manifest(recorded), *OWN)
    assert manifest(out)["complete"] is True
    if out.suffix == ".zip":
        assert not Path(f"{out}.blocks").exists()
    else:
        assert tree(out).keys() == tree(recorded).keys()  # and no half-written file is left


def test_a_finished_folder_is_complete(copied, run):
    place = copied("models", "generate/finished")
    out = place / "generate/finished"
    files = [path for path in out.rglob("*") if path.is_file()]  # a lock comes and goes in a folder
    before, when = tree(out), [path.stat().st_mtime_ns for path in files]
    assert draw(run, place, out) == 0
    assert tree(out) == before
    assert [path.stat().st_mtime_ns for path in files] == when
    check_whole(out, place, run)


def test_a_finished_zip_is_complete(copied, run):
    place = copied("models", "generate/finished.zip")
    out = place / "generate/finished.zip"
    before, when = out.read_bytes(), out.stat().st_mtime_ns
    assert draw(run, place, out) == 0
    assert (out.read_bytes(), out.stat().st_mtime_ns) == (before, when)
    check_whole(out, place, run)


def test_a_killed_folder_goes_on(copied, run):
    place = copied("models", "generate/killed")
    out = place / "generate/killed"
    kept = {out / f"000000/{seed:06d}.png" for seed in range(BATCH)} | {out / ".blocks/000000.json"}
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept}
    assert draw(run, place, out) == SEEDS - BATCH
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in kept} == before
    check_whole(out, place, run)


def test_a_killed_zip_goes_on(copied, run):
    place = copied("models", "generate/killed.zip.blocks")
    out = place / "generate/killed.zip"
    with zipfile.ZipFile(f"{out}.blocks/000000.zip") as archive:
        kept = {name: archive.read(name) for name in archive.namelist() if name.endswith(".png")}
    assert draw(run, place, out) == SEEDS - BATCH
    made = images(out)
    assert {name: made[name] for name in kept} == kept
    assert len(kept) == BATCH
    check_whole(out, place, run)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_killed_before_its_first_image_begins(kind, copied, run):
    name = "begun.zip.blocks" if kind else "begun"
    place = copied("models", f"generate/{name}")
    out = place / f"generate/begun{kind}"
    assert draw(run, place, out) == SEEDS
    check_whole(out, place, run)


CHANGES = {
    "model_sha256": "0" * 64,
    "D": 128,
    "plan": "3",
    "seeds": "0-8",
    "class": 1,
    "guidance": 2.0,
    "noise": "edm",
    "arithmetic": "float16",
}


@pytest.mark.parametrize("key", CHANGES)
def test_another_run_is_refused(key, copied, run):
    """All parts of the key count; were one not looked at, the images of another run would be taken for those asked."""
    place = copied("models", "generate/killed", "generate/finished", "generate/killed.zip.blocks")
    for out, file in (("killed", "killed/"), ("finished", "finished/"), ("killed.zip", "killed.zip.blocks/")):
        path = place / "generate" / file / "manifest.json"
        content = json.loads(path.read_text())
        assert content["run"].keys() == CHANGES.keys()
        content["run"][key] = CHANGES[key]
        path.write_text(json.dumps(content))
        before = tree(place / "generate" / file)
        code, _, stderr = run(*generate(place, place / "generate" / out))
        assert code == 2
        assert f"holds another run, with {key} {json.dumps(CHANGES[key])}, not " in stderr
        assert tree(place / "generate" / file) == before


def test_another_batch_is_refused(copied, run):
    place = copied("models", "generate/killed", "generate/killed.zip.blocks")
    for out in ("killed", "killed.zip"):
        code, _, stderr = run(*instead(generate(place, place / "generate" / out), "--batch", "5"))
        assert code == 2
        assert "made with --batch 4, not 5" in stderr


def test_a_damaged_image_is_drawn_again(copied, run):
    """Records with SHA-256 are read: otherwise what is damaged would count as there."""
    place = copied("models", "generate/finished", "generate/killed.zip.blocks")
    out = place / "generate/finished"
    (out / "000000/000005.png").write_bytes((out / "000000/000004.png").read_bytes())
    assert draw(run, place, out) == BATCH
    check_whole(out, place, run)
    block = place / "generate/killed.zip.blocks/000000.zip"
    content = bytearray(block.read_bytes())
    content[100] ^= 1
    block.write_bytes(content)
    assert draw(run, place, place / "generate/killed.zip") == SEEDS


def test_labels_go_with_their_images(copied, run):
    """A dataset.json that is missing is made anew from the records."""
    place = copied("models", "generate/finished")
    out = place / "generate/finished"
    before = labels(out)
    assert len(json.loads(before)["labels"]) == SEEDS
    (out / "dataset.json").unlink()
    assert draw(run, place, out) == 0
    assert labels(out) == before
    shutil.rmtree(out / ".blocks")
    assert draw(run, place, out) == SEEDS
    assert labels(out) == before
