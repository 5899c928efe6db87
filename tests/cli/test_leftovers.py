"""What a killed run left half-written is gone after the next run of the command, and nothing else is."""

import json
from pathlib import Path

import pytest

from sweeps import made_up, results_file
from tiny import image_folder, pictures

DETECTOR = ("--detector", "tiny.pt", "--trust-detector")
MEASURE = ("--reference", "ref.npz", *DETECTOR)
COMMANDS = {
    "figure": (("figure", "results/results.jsonl", "--out", "out.svg"), "out.svg"),
    "report": (("report", "results", "--out", "out.html"), "out.html"),
    "reference": (("reference", "data", *DETECTOR, "--out", "out.npz"), "out.npz"),
    "convert": (("model", "convert", "tiny.safetensors", "out.safetensors"), "out.safetensors"),
    "push": (("model", "push", "tiny.safetensors", "out", "--license", "mit", "--plan", "2", "--seeds", "0"), "out"),
    "coco": (("text", "coco", "captions.json", "--images", "2", "--out", "out"), "out/subset.csv"),
    "sweep": (
        ("sweep", "--model", "tiny.safetensors", *MEASURE, "--plans", "2", "--images", "12", "--out", "out"),
        "out/samples/00.png",
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_next_run_removes_what_a_killed_one_left(name, place, run):
    words, written = COMMANDS[name]
    Path("results").mkdir()
    results_file(*made_up()[:3], name="results/results.jsonl")
    image_folder(Path("data"), pictures(4))
    images = [{"id": number, "file_name": f"{number}.png"} for number in range(2)]
    captions = [{"image_id": number, "caption": "a cat"} for number in range(2)]
    Path("captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    path = Path(written)
    left, own = path.with_name(f".{path.name}.{'0a' * 8}.partial"), path.with_name(f".{path.name}.partial")
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half")
    own.write_bytes(b"the user's")
    code, _, err = run(*words)
    assert code == 0, err
    assert [each for each in Path().rglob(".*.partial") if each.is_file()] == [own]


@pytest.mark.parametrize(
    ("words", "written"), [COMMANDS[name] for name in ("convert", "push")], ids=["convert", "push"]
)
def test_a_run_that_has_nothing_to_do_removes_the_lock_of_a_killed_one(words, written, place, run):
    assert run(*words)[0] == 0
    lock = Path(f".{written}.lock.partial")
    lock.touch()
    assert run(*words)[0] == 2
    assert not lock.exists()
