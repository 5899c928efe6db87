"""Evaluations and sweeps that version 0.1.0 was killed in go on; its statistics and results files are read."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from old_files import (
    EVALUATIONS,
    PLANS,
    check_row,
    evaluate,
    expected,
    figures,
    rename_sums,
    sums_key,
    sweep,
    words,
)

from arguments import instead


def figure(run, arguments) -> dict:
    code, stdout, stderr = run(*arguments)
    assert code == 0, stderr
    return json.loads(stdout)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_a_killed_evaluation_goes_on(name, copied, run):
    """With features, from the sums of two processes; with blocks, from those of one."""
    place = copied("models", "figures", f"evaluate/{name}")
    recorded = expected("evaluate/expected")[name]
    results = place / f"evaluate/{name}/results.jsonl"
    before, sums = results.read_text(), results.with_name("results.jsonl.partial")
    rename_sums(sums, recorded["sums"])
    row = figure(run, evaluate(place, PLANS[1], results, *EVALUATIONS[name]))
    assert row["drawn"] == row["images"] - recorded["done"]
    check_row(row, recorded["row"])
    assert results.read_text().startswith(before)
    assert len(figures(results)) == 2
    assert not sums.exists()
    # The line that was there says what the same command says now.
    check_row(figure(run, evaluate(place, PLANS[0], results, *EVALUATIONS[name])), figures(results)[0])


OTHER = {
    "--guidance": "1.5",
    "--seeds": "0-28",
    "--batch": "5",
    "--blocks": "2",
    "--metrics": "fd,kid",
    "--noise": "edm",
}


@pytest.mark.parametrize("option", OTHER)
def test_sums_of_another_evaluation_are_left_alone(option, copied, run):
    """All parts of their name count. (Sums hold the features or they do not, whichever metric wants them.)"""
    place = copied("models", "figures", "evaluate/blocks")
    results = place / "evaluate/blocks/results.jsonl"
    sums = results.with_name("results.jsonl.partial")
    rename_sums(sums, expected("evaluate/expected")["blocks"]["sums"])
    (file,) = sums.iterdir()
    arguments = instead(evaluate(place, PLANS[1], results, *EVALUATIONS["blocks"]), option, OTHER[option])
    row = figure(run, arguments)
    assert row["drawn"] == row["images"]
    assert list(sums.iterdir()) == [file]


def test_the_name_of_sums_has_no_path_in_it():
    """It was made with relative paths; nothing in it names a file or a folder."""
    for name in EVALUATIONS:
        about = expected("evaluate/expected")[name]["sums"]
        assert about.keys() == {"run", "detector", "batch", "blocks", "features", "versions"}
        assert "/" not in json.dumps(about)
        assert ".safetensors" not in json.dumps(about)
        assert len(sums_key(about)) == 16


def test_statistics_in_edms_form_are_read(copied, run):
    place = copied("models", "figures")
    row = figure(run, evaluate(place, PLANS[0], place / "results.jsonl", reference="edm.npz"))
    check_row(row, expected("evaluate/expected")["edm"]["row"])


def test_our_statistics_are_those_of_the_same_images_now(copied, run):
    place = copied("figures")
    detector = ("--detector", place / "figures/tiny.pt", "--trust-detector", "--device", "cpu")
    data, new = place / "figures/data.zip", place / "new.npz"
    code, _, stderr = run(*words("reference", data, "--out", new, *detector, "--features"))
    assert code == 0, stderr
    with np.load(place / "figures/reference.npz") as old, np.load(new) as made:
        assert set(made.files) == {*old.files, "size", "detector_name"}  # which later versions keep
        for key in ("mu", "sigma", "features"):
            np.testing.assert_allclose(made[key], old[key], rtol=1e-4, atol=1e-4)
        for key in ("images", "labels", "detector", "source"):
            assert np.array_equal(made[key], old[key]), key


def test_a_half_done_sweep_goes_on(copied, run):
    place = copied("models", "figures", "sweep")
    recorded = expected("sweep/expected")
    out = place / "sweep/out"
    before, there = (out / "results.jsonl").read_text(), sorted((out / "samples").iterdir())
    when = {path: path.stat().st_mtime_ns for path in there}
    assert len(there) == 3  # the third row has drawn its first images
    rename_sums(out / "results.jsonl.partial", recorded["sums"])
    code, stdout, stderr = run(*sweep(place, out))
    assert code == 0, stderr
    assert "; there already: 2" in stderr
    for row, anew in enumerate((False, False, True, True, True), start=1):
        assert (f"row {row} of 5" in stderr) == anew
    assert (out / "results.jsonl").read_text().startswith(before)
    assert not (out / "results.jsonl.partial").exists()
    # Names of samples are the keys of the rows; those that are there are not drawn again, also of the third row.
    assert {path: path.stat().st_mtime_ns for path in there} == when
    for found, row in zip(json.loads(stdout)["results"], recorded["rows"], strict=True):
        check_row(found, row)
    assert len(figures(out / "results.jsonl")) == len(list((out / "samples").iterdir())) == 5


CHANGES = {"model_sha256": "0" * 64, "D": 128, "seeds": "0-22", "class": 1, "guidance": 2.0, "noise": "edm"}


@pytest.mark.parametrize("key", CHANGES)
def test_a_sweep_of_something_else_is_refused(key, copied, run):
    place = copied("models", "figures", "sweep")
    results = place / "sweep/out/results.jsonl"
    first, second = figures(results)
    assert first["run"].keys() == {*CHANGES, "plan", "arithmetic"}
    first["run"][key] = CHANGES[key]
    results.write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    code, _, stderr = run(*sweep(place, place / "sweep/out"))
    assert code == 2
    assert f"different {key.replace('model_sha256', 'model')} (" in stderr


def test_a_row_with_another_plan_is_another_row(copied, run):
    place = copied("models", "figures", "sweep")
    out = place / "sweep/out"
    shutil.rmtree(out / "results.jsonl.partial")
    first, second = figures(out / "results.jsonl")
    first["run"]["plan"] = "7"
    (out / "results.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    code, _, stderr = run(*sweep(place, out))
    assert code == 0
    assert "; there already: 1" in stderr


def test_results_become_figures_and_a_report(copied, run):
    place = copied("sweep")
    results = place / "sweep/out/results.jsonl"
    for command in (("figure", results, "--out", "nfe.pdf"), ("report", place / "sweep/out", "--out", "report.html")):
        code, _, stderr = run(*words(*command))
        assert code == 0, stderr
    assert Path("nfe.pdf").stat().st_size > 1000
    assert "4 churn=2 s_noise=1.003" in Path("report.html").read_text()
