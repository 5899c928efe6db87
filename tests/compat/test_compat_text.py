"""Images of prompts, and tables of them, that version 0.1.0 was killed in go on."""

import json
from pathlib import Path

import pytest
from old_files import (
    FILES,
    check_images,
    check_row,
    expected,
    figures,
    text_compare,
    text_generate,
    tree,
    versions,
    words,
)

LIBRARIES = ("diffusers", "transformers")
IMAGES, BATCH = 6, 2


def fit(run_key: dict, here: dict, made_with: dict) -> dict:
    """What defines images, as it would be if the libraries of this machine had made them.

    The settings of a scheduler of diffusers are a part of it, with those that the user left as they are, and the names
    of the weights too: another version of the libraries may have more or fewer. Where the versions are those of the
    files, nothing is changed; all values that both have are as they were.
    """
    if all(made_with[name] == versions(*LIBRARIES)[name] for name in LIBRARIES):
        return run_key
    old, new = run_key["scheduler"], here["scheduler"]
    scheduler = {key: old.get(key, value) for key, value in new.items()}
    return {**run_key, "scheduler": scheduler, "model_sha256": here["model_sha256"]}


def drawn(run, arguments) -> int:
    code, stdout, stderr = run(*arguments)
    assert code == 0, stderr
    return json.loads(stdout)["drawn"]


@pytest.fixture
def place(copied):
    return copied("text/sd", "text/clip", "text/prompts.csv", "text/finished", "text/killed", "text/table", "figures")


def fitted_manifest(out: Path, undisturbed: Path) -> dict:
    """The manifest of a run of version 0.1.0, made to fit the libraries."""
    path = out / "manifest.json"
    manifest, here = (json.loads((folder / "manifest.json").read_text()) for folder in (out, undisturbed))
    manifest["run"] = fit(manifest["run"], here["run"], manifest["versions"])
    path.write_text(json.dumps(manifest))
    return manifest


def test_finished_images_of_prompts_are_complete(place, run):
    out, undisturbed = place / "text/finished", place / "undisturbed"
    assert drawn(run, text_generate(place, undisturbed)) == IMAGES
    fitted_manifest(out, undisturbed)
    when = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    assert drawn(run, text_generate(place, out)) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == when
    check_images(undisturbed, FILES / "text/finished", undisturbed)


def test_killed_images_of_prompts_go_on(place, run):
    out, undisturbed = place / "text/killed", place / "undisturbed"
    assert drawn(run, text_generate(place, undisturbed)) == IMAGES
    fitted_manifest(out, undisturbed)
    kept = [out / f"000000/{number:06d}.png" for number in range(BATCH)]
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept]
    assert drawn(run, text_generate(place, out)) == IMAGES - BATCH
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in kept] == before
    check_images(out, FILES / "text/finished", undisturbed)
    assert tree(out).keys() == tree(FILES / "text/finished").keys()
    assert (out / "subset.csv").read_bytes() == (FILES / "text/finished/subset.csv").read_bytes()


def test_other_images_of_prompts_are_refused(place, run):
    """All parts of the key count, and each setting of the scheduler."""
    out, undisturbed = place / "text/killed", place / "undisturbed"
    drawn(run, text_generate(place, undisturbed))
    manifest = fitted_manifest(out, undisturbed)
    changed = dict.fromkeys(manifest["run"], "another")
    changed["scheduler"] = {**manifest["run"]["scheduler"], "restart": [[4, 2, 0.5, 2.0]]}
    assert changed.keys() >= {"model_sha256", "prompts", "sampler", "guidance", "seed", "scheduler"}
    for key, value in changed.items():
        (out / "manifest.json").write_text(json.dumps({**manifest, "run": {**manifest["run"], key: value}}))
        code, _, stderr = run(*text_generate(place, out))
        assert code == 2
        assert f"holds another run, with {key} " in stderr


def test_a_half_done_table_goes_on(place, run):
    recorded = expected("text/expected")["rows"]
    out, undisturbed = place / "text/table", place / "undisturbed"
    code, stdout, stderr = run(*text_compare(place, undisturbed))
    assert code == 0, stderr
    here = json.loads(stdout)["results"]
    assert [row["drawn"] for row in here] == [20, 20, 20]
    _fit_table(out, here)
    before = (out / "results.jsonl").read_text()
    code, stdout, stderr = run(*text_compare(place, out))
    assert code == 0, stderr
    assert "; there already: 1" in stderr
    for row, anew in enumerate((False, True, True), start=1):
        assert (f"row {row} of 3" in stderr) == anew
    assert (out / "results.jsonl").read_text().startswith(before)
    rows = json.loads(stdout)["results"]
    assert [row["drawn"] for row in rows] == [20, 16, 20]
    assert not (out / "images").exists()
    for found, whole, old in zip(rows, here, recorded, strict=True):
        check_row(_unnamed(found), _unnamed(old, found))
        assert found["samples"] == whole["samples"]
    assert len(figures(out / "results.jsonl")) == 3


def _fit_table(out: Path, here: list[dict]) -> None:
    """As `fit`, for a table: its rows, and the folder of the unfinished one, which has the row's key for its name."""
    keys = [Path(row["samples"]).stem for row in here]
    (line,) = figures(out / "results.jsonl")
    fitted = fit(line["run"], here[0]["run"], line["versions"])
    (folder,) = (out / "images").iterdir()
    if fitted == line["run"]:
        assert folder.name == keys[1]
        assert line["samples"] == here[0]["samples"]
        return
    (out / "results.jsonl").write_text(json.dumps({**line, "run": fitted}) + "\n")
    folder = folder.rename(folder.with_name(keys[1]))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["run"] = fit(manifest["run"], here[1]["run"], manifest["versions"])
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _unnamed(row: dict, found: dict | None = None) -> dict:
    """Without the name of its key; made to fit the libraries where `found` is what they make."""
    fitted = row["run"] if found is None else fit(row["run"], found["run"], row["versions"])
    return {**{key: value for key, value in row.items() if key != "samples"}, "run": fitted}


def test_a_table_of_something_else_is_refused(place, run):
    path = place / "text/table/results.jsonl"
    (line,) = figures(path)
    line["run"]["seed"] = 7
    path.write_text(json.dumps(line) + "\n")
    code, _, stderr = run(*text_compare(place, place / "text/table"))
    assert code == 2
    assert "different" in stderr
    assert "seed" in stderr


def test_a_table_becomes_a_figure(place, run):
    code, _, stderr = run(*words("figure", place / "text/table/results.jsonl", "--kind", "text", "--out", "scores.pdf"))
    assert code == 0, stderr
    assert Path("scores.pdf").stat().st_size > 1000
