"""A run of `train` that version 0.1.0 was killed in goes on."""

import json

import pytest
import torch
from old_files import FILES, expected, lines, take, train
from safetensors import safe_open

import restart_sampling as rs

STEPS, BATCH = 7, 8
"""Steps that are in the state; the files beside it have one more."""


def weights(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key).float() for key in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture
def place(copied):
    return copied("figures", "train/killed")


def test_a_killed_run_goes_on(place, run):
    """Arithmetic in float32 differs between machines, and Adam's first steps are as long as the learning rate, 0.01,
    also where a gradient is next to 0, whose sign is then rounding: so a few weights may differ elsewhere. A machine
    that makes the recorded bytes without an interruption has to make them with one, too.
    """
    out, recorded = place / "train/killed", FILES / "train/finished.safetensors"
    code, stdout, stderr = run(*train(place, out))
    assert code == 0, stderr
    assert f"goes on: it has trained on {STEPS * BATCH} images" in stderr
    result = json.loads(stdout)
    assert result["images"] == 96
    assert result["parameters"] == expected("train/expected")["parameters"]
    history = [line["images"] for line in lines(out / "loss.jsonl")]
    assert history[:STEPS] == [BATCH * step for step in range(1, STEPS + 1)]
    assert history[-1] == 96
    (found, says), (old, said) = weights(out / "model.safetensors"), weights(recorded)
    assert says == said
    assert found.keys() == old.keys()
    differences = torch.cat([(found[key] - old[key]).abs().flatten() for key in old])
    assert (differences < 1e-3).float().mean() > 0.98
    assert differences.max() < 0.1
    assert not list(out.glob(".*"))
    code, _, stderr = run(*train(place, place / "undisturbed"))
    assert code == 0, stderr
    if (place / "undisturbed/model.safetensors").read_bytes() == recorded.read_bytes():
        assert (out / "model.safetensors").read_bytes() == recorded.read_bytes()


def test_the_run_that_goes_on_is_not_a_new_one(place, run):
    """The state matters: without it the same command begins anew."""
    out = place / "train/killed"
    (out / "state.pt").unlink()
    code, _, stderr = run(*train(place, out))
    assert code == 0, stderr
    assert "goes on" not in stderr


def test_another_run_is_refused(place, run):
    path = place / "train/killed/run.json"
    content = json.loads(path.read_text())
    for key, value in content["run"].items():
        path.write_text(json.dumps({**content, "run": {**content["run"], key: "another"}}))
        code, _, stderr = run(*train(place, place / "train/killed"))
        assert code == 2
        assert f"holds another run, with {key} " in stderr, value


def test_a_trained_model_is_one_to_draw_with(tmp_path):
    take("train/killed", tmp_path)
    model = rs.load_model(tmp_path / "train/killed/model.safetensors")
    assert (model.resolution, model.channels, model.label_dim, model.D) == (8, 3, 3, None)
