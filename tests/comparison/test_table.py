"""Tables of results for papers, and the verdict on a sweep."""

import csv
import io
import json
from math import inf
from pathlib import Path

import pytest

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted, rounded_to, with_error
from restart_sampling.cli.row_options import print_rows
from restart_sampling.comparison.table import results_table, write_csv, write_latex, write_markdown
from restart_sampling.comparison.verdict import verdict
from sweeps import lines, result, results_file

ROWS = (
    result("18", 0.6351, 0.0048, name="heun_18 & co"),
    result("18 [3,2,0.06,0.30]", 0.527123, 0.014, published_fid=2.7, frechet_distance_min=0.512345),
)


@pytest.mark.parametrize(
    ("value", "error", "written"),
    [
        (0.0454887, 0.0041, "0.0455 +- 0.0041"),
        (0.527123, 0.0996, "0.53 +- 0.10"),
        (-3.14159, 0.5, "-3.14 +- 0.50"),
        (1234.567, 123.4, "1235 +- 123"),
        (0.00000123456, 0.0000000987, "0.000001235 +- 0.000000099"),
        (0.1234567, 0.0, "0.123457 +- 0"),
        (0.1234567, inf, "0.123457 +- inf"),
        (0.1234567, None, "0.123457"),
    ],
)
def test_a_number_has_as_many_digits_as_its_error(value, error, written):
    assert with_error(value, error) == written
    assert rounded_to(value, error) == written.partition(" +- ")[0]
    assert with_error(abs(value), error, sign="+", between=" ± ") == "+" + written.lstrip("-").replace("+-", "±")


def test_what_is_one_is_not_many():
    assert [counted(each, "image") for each in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(each, "class") for each in (1, 2)] == ["1 class", "2 classes"]
    assert [counted(each, "minute", "g") for each in (0.5, 1.0, 10.0)] == ["0.5 minutes", "1 minute", "10 minutes"]
    assert counted(2000, "trial", ",") == "2,000 trials"


def test_markdown_has_as_many_digits_as_the_error():
    table = write_markdown(results_table(ROWS)).splitlines()
    assert table[0].startswith("| row | plan | NFE | images | Fréchet distance |")
    assert table[1].startswith("| --- | --- | ---: | ---: | ---: |")
    assert "| 0.6351 ± 0.0048 |" in table[2]
    assert "| 0.527 ± 0.014 | 0.512 |" in table[3]
    assert table[3].endswith("| 2.7 |")


def test_csv_has_all_digits_and_errors_beside():
    first, second = csv.DictReader(io.StringIO(write_csv(results_table(ROWS))))
    assert (second["Fréchet distance"], second["error of Fréchet distance"]) == ("0.527123", "0.014")
    assert (first["row"], first["published FID"]) == ("heun_18 & co", "")


def test_latex_is_escaped():
    text = write_latex(results_table(ROWS))
    assert text.startswith("\\begin{tabular}{llrrr")
    assert r"heun\_18 \& co & 18 & 35 &" in text
    assert r"0.527 $\pm$ 0.014" in text
    assert text.endswith("\\bottomrule\n\\end{tabular}\n")


LONG = "14 [4,2,0.2114,1.193] churn=39.12 s_min=0.1731 s_max=6.79"


def test_long_names_and_plans_are_below_the_table():
    rows = [result("18", 1.0, name="18"), result(LONG, 2.0), result(LONG, 3.0, name="tuned")]
    table = results_table(rows)
    written = str(rows[1]["plan"])
    head, _, *lines = write_markdown(table).splitlines()
    assert head.startswith("| row | NFE |")
    assert [line.split(" | ")[0] for line in lines[:3]] == ["| 18", "| #2", "| tuned"]
    assert lines[3:] == ["", f"- #2: `{written}`", f"- tuned: `{written}`"]
    assert f"\\#2 & {rows[1]['nfe']} &" in write_latex(table)
    assert write_latex(table).endswith(f"\\end{{tabular}}\n% #2: {written}\n% tuned: {written}\n")
    assert write_csv(table).count(written) == 3


def test_a_precision_of_0_has_its_limit_in_tables():
    row = result("18", 1.0, images=60, precision=0.0, precision_error=0.0)
    assert "| 0 (&lt; 0.049) |" in write_markdown(results_table([row]))
    assert "& 0 ($<$ 0.049) \\\\" in write_latex(results_table([row]))


def test_a_table_is_no_wider_than_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr("restart_sampling.cli.row_options.table_width", lambda: 40)
    values = {"Fréchet distance": "0.418 +- 0.016", "paired difference to the first": "-0.0533 +- 0.0084", "NFE": "17"}
    labels = print_rows(["18", LONG], ["18", LONG], {title: [value] * 2 for title, value in values.items()})
    out = capsys.readouterr().out
    assert labels == ["18", "#2"]
    assert max(map(len, out.splitlines())) <= 40
    assert [line for line in out.splitlines() if line.startswith("#2")] == [
        "#2   0.418 +- 0.016  -0.0533 +- 0.0084",
        "#2   17 ",
        "#2  14 [4,2,0.2114,1.193] churn=39.12",
    ]
    assert "    s_min=0.1731 s_max=6.79" in out.splitlines()


def test_the_command_prints_a_file_or_the_sweep_in_a_folder(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results_file(*ROWS)
    code, out, _ = run("results", "table", "results.jsonl", "--format", "latex")
    assert (code, out) == (0, write_latex(results_table(lines(Path("results.jsonl")))))
    assert run("results", "table", ".")[1].startswith("| row |")
    Path("results.jsonl").write_text("")
    code, _, err = run("results", "table", ".")
    assert code == 2
    assert "has no rows" in err


def test_files_and_prompted_rows_have_tables_too():
    files = {"run": {"images": "folder", "max_images": None}, "images": 7, "plan": None, "frechet_distance": 2.5}
    text = {"run": {}, "name": "ddim:50 at 2", "guidance": 2.0, "nfe": 50, "images": 7, "clip_score": 0.3125}
    table = results_table([files, text])
    assert table["row"] == ["folder", "ddim:50 at 2"]
    assert "plan" not in table
    assert write_markdown(table).splitlines()[3].startswith("| ddim:50 at 2 | 2.0 | 50 | 7 |  |")
    with pytest.raises(InputError, match="has nfe 'many', which is no number"):
        results_table([{**text, "nfe": "many"}])


def paired(plan, blocks):
    mean = sum(blocks) / len(blocks)
    return result(plan, mean, 0.01, frechet_distance_blocks=list(blocks))


def test_a_verdict_names_the_best_what_is_alike_and_what_restarts_do():
    rows = [
        paired("18", (0.60, 0.61, 0.62)),
        paired("18 [3,2,0.06,0.30]", (0.50, 0.51, 0.52)),
        paired("20 [3,2,0.06,0.30]", (0.50, 0.512, 0.519)),  # alike: +0.0003 +- 0.0009
    ]
    best, alike, restarts, warning = verdict(dict(enumerate(rows)))
    assert best == "The lowest distance is that of '18 [3,2,0.06,0.3]' (43 evaluations): 0.510 ± 0.010."
    assert alike == "Within 2 standard errors of it is '20 [3,2,0.06,0.3]' (47 evaluations)."
    assert "against the best without, of as many evaluations or fewer, '18' (35 evaluations)" in restarts
    assert "its distance is lower by 0.1 ± 0" in restarts
    assert "picked on the seeds" in warning


def test_restarts_that_harm_are_said_to():
    rows = [paired("18", (0.50, 0.51)), paired("18 [3,2,0.06,0.30]", (0.60, 0.612)), paired("40", (0.3, 0.301))]
    lines = verdict(dict(enumerate(rows)))
    assert lines[1] == "All others are higher by more than 2 standard errors of the difference."
    assert "'18' (35 evaluations)" in lines[2]  # and not that of 79
    assert "its distance is higher by 0.1010 ± 0.001" in lines[2]
    rows[1] = paired("18 [3,2,0.06,0.30]", (0.50, 0.508))
    assert (
        "its distance is -0.0010 ± 0.0010 from it, which cannot be told from none" in verdict(dict(enumerate(rows)))[-2]
    )
    assert len(verdict({"one": rows[0]})) == 1


def test_published_rows_warn_of_another_network_and_of_few_images(place, run):
    words = (
        "--reference",
        "ref.npz",
        "--detector",
        "tiny.pt",
        "--trust-detector",
        "--images",
        "12",
        "--out",
        "out",
        "--dry-run",
    )
    err = run("sweep", "--model", "tiny.safetensors", "--paper", "cifar10-edm", *words)[2]
    assert "note: the published FIDs are those of edm-cifar10-32x32-uncond-vp, and this model is tiny" in err
    assert "note: the published FIDs are of 50000 images, and a distance of 12 is higher" in err
    assert err.count("a preset here was made for edm-cifar10-32x32-uncond-vp") == 1
    Path("edm-cifar10-32x32-uncond-vp.safetensors").symlink_to("tiny.safetensors")
    own = run(
        "sweep", "--model", "edm-cifar10-32x32-uncond-vp.safetensors", "--plans", "cifar10-edm-43", *words, "--dry-run"
    )
    assert "note: a preset" not in own[2]


@pytest.mark.parametrize("plan", ["cifar10-vp-43", "cifar10-vp-43 s_noise=1.003"])
def test_a_preset_for_another_network_is_said(plan, place, run):
    words = ("--model", "tiny.safetensors", "--seeds", "0", "--out", "images", "--dry-run", "--json")
    code, out, err = run("generate", *words, "--plan", plan, "--set", "churn=1")
    assert (code, json.loads(out)["images"]) == (0, 1)
    assert "note: a preset here was made for baseline-cifar10-32x32-uncond-vp, and this model is tiny" in err
    assert "a preset here" not in run("generate", *words, "--plan", "18 [3,2,0.06,0.30]")[2]
