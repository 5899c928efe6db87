"""Where pipelines come from: safetensors only, no code of theirs, and one sentence where they cannot be loaded."""

import json
import shutil

import pytest
import torch

from restart_sampling.base.errors import InputError
from restart_sampling.text_to_image.pipeline import load_pipeline, quiet

CPU = torch.device("cpu")


def load(name, dtype=torch.float32):
    return load_pipeline(str(name), CPU, dtype)


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder(), tmp_path / "copy")


def refused(name):
    with pytest.raises(InputError) as error:
        load(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_hash_is_of_the_weights_alone(folder, copy, model):
    assert load(copy).sha256 == model().sha256
    assert load(copy, torch.bfloat16).sha256 != model().sha256
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load(copy).sha256 != model().sha256


def test_pickles_are_not_read(copy):
    for part, name in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model")):
        weights = copy / part / f"{name}.safetensors"
        pickle = copy / part / f"{'pytorch_model' if part == 'text_encoder' else name}.bin"
        content = weights.read_bytes()
        torch.save({}, pickle)
        weights.unlink()
        assert "could not be loaded" in refused(copy)
        weights.write_bytes(content)


BOMB = "raise SystemExit('code of the model was run')\n"


def test_code_that_comes_with_a_model_is_not_run(copy):
    index = copy / "model_index.json"
    plain = index.read_text()
    (copy / "unet" / "own.py").write_text(BOMB)
    edit(index, unet=["own", "Network"])
    assert "could not be loaded" in refused(copy)
    index.write_text(plain)
    (copy / "own.py").write_text(BOMB)
    (copy / "pipeline.py").write_text(BOMB)
    edit(index, _class_name=["own", "Pipeline"])
    assert "could not be loaded" in refused(copy)
    index.write_text(plain)
    edit(index, unet=["antigravity_module_of_the_model", "Network"])
    assert "could not be loaded" in refused(copy)


def test_modules_that_a_model_names_are_not_imported(copy, tmp_path, monkeypatch):
    """Whoever may write into a folder on Python's path, such as the current one, could put a module there."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "elsewhere.py").write_text(BOMB)
    for part in ("unet", "scheduler", "tokenizer"):
        index = copy / "model_index.json"
        plain = index.read_text()
        edit(index, **{part: ["elsewhere", "Network"]})
        assert f"its {part} is of the module elsewhere, not of diffusers or transformers" in refused(copy)
        index.write_text(plain)


def test_a_safety_checker_is_left_out(copy):
    edit(copy / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])
    model = load(copy)  # its files are not even there
    assert model.unchecked
    assert model.pipe.safety_checker is None


def test_a_pipeline_without_one_is_as_it_was(model):
    assert not model().unchecked
    assert not model("sdxl").unchecked


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "model.safetensors", "v1-5.ckpt"])
def test_no_such_folder(name):
    assert f"--model {name}: there is no such folder; give one in diffusers' layout" in refused(name)


def test_a_folder_of_something_else(tmp_path, folder):
    assert f"--model {tmp_path} could not be loaded (" in refused(tmp_path)
    shutil.copytree(folder(), tmp_path / "video")
    edit(tmp_path / "video" / "model_index.json", _class_name="TextToVideoSDPipeline")
    assert "could not be loaded (ValueError: AutoPipeline can't find a pipeline" in refused(tmp_path / "video")


def test_the_hub_that_cannot_be_reached(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    said = refused("someone/some-model")
    assert said.startswith("--model someone/some-model could not be loaded (")
    assert "'hf download someone/some-model --local-dir FOLDER'" in said


def test_quiet_leaves_the_logs_as_they_were():
    import diffusers.utils.logging as log

    log.set_verbosity_info()
    with quiet():
        assert log.get_verbosity() == log.ERROR
    assert (log.get_verbosity(), log.is_progress_bar_enabled()) == (log.INFO, True)
    log.set_verbosity_warning()


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr("restart_sampling.base.errors.find_spec", lambda package: None)
    assert refused("someone/some-model") == (
        "this needs diffusers, which is not installed: pip install 'restart-sampling[text]'"
    )
