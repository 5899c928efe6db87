"""Model files of version 0.1.0 are read, and their networks answer as they did."""

import json

import numpy as np
import pytest
import torch
from old_files import FILES, MODELS

import restart_sampling as rs

ANSWERS = dict(np.load(FILES / "answers.npz"))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_as_it_did(name, copied):
    """The networks are in float32, where machines differ in the last digits."""
    model = rs.load_model(copied("models") / f"models/{name}.safetensors")
    low, high, D = ANSWERS[f"{name}.limits"].tolist()
    assert (model.sigma_min, model.sigma_max, model.D or 0) == (pytest.approx(low), pytest.approx(high), D)
    x, sigma = (torch.from_numpy(ANSWERS[f"{name}.{what}"]) for what in ("x", "sigma"))
    x = x.double().expand(2, 3, 8, 8)
    assert torch.equal(model.round_sigma(sigma), sigma)
    with torch.no_grad():
        answer = model(x, sigma, torch.tensor([0, 2]) if model.label_dim else None)
    np.testing.assert_allclose(answer.numpy(), ANSWERS[f"{name}.answer"], rtol=1e-4, atol=1e-4)


def test_what_a_file_says_is_read(copied, run):
    code, stdout, stderr = run(*["model", "inspect", str(copied("models") / "models/edm.safetensors"), "--json"])
    assert code == 0, stderr
    found = json.loads(stdout)
    assert found["classes"] == ["cat", "dog", "frog"]
    assert (found["class"], found["metadata"]["training"]) == ("EDMPrecond", "none: random weights")
