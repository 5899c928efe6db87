import json

import pytest
import torch

from restart_sampling.base.errors import InputError
from restart_sampling.training.run_folder import RunFolder

CPU = torch.device("cpu")


@pytest.fixture
def run_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.check({"batch": 512, "lr": 1e-3})
    folder.begin({"batch": 512, "lr": 1e-3})
    return folder


def test_the_same_run_is_welcome_also_when_less_of_it_is_known(run_folder):
    run_folder.check({"batch": 512, "lr": 1e-3})
    run_folder.check({"batch": 512})


def test_a_run_from_before_there_was_augmentation_goes_on(run_folder):
    run_folder.check({"batch": 512, "lr": 1e-3, "augment": 0.0, "ema_images": 500_000})
    with pytest.raises(InputError, match=r"holds another run, with augment 0.0, not 0.12"):
        run_folder.check({"batch": 512, "lr": 1e-3, "augment": 0.12, "ema_images": 500_000})


def test_another_run_is_refused(run_folder):
    with pytest.raises(InputError, match=r"run holds another run, with batch 512, not 256; choose another --out"):
        run_folder.check({"batch": 256, "lr": 1e-3})


def test_a_run_of_a_length_that_is_no_number_is_another(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin({"images": 64})
    folder.check({"images": 128})
    folder.begin({"images": True})
    with pytest.raises(InputError, match="holds another run, with images true, not 128"):
        folder.check({"images": 128})


EXTENDED = '{"format": "restart-sampling-training/1", "run": {"batch": 512}, "extended_from": ["x"]}'


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "other/1", "run": {}}', '{"format": 3}', EXTENDED])
def test_a_folder_of_something_else_is_refused(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match="is not a run of train"):
        RunFolder(tmp_path).check({"batch": 512})


def test_a_file_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="is not a run of train"):
        RunFolder(tmp_path / "run").check({"batch": 512})


def test_what_a_killed_process_left_is_no_obstacle_and_goes(tmp_path):
    others = [
        ".images.zip.0123456789abcdef.partial",
        ".state.pt.bak.partial",
        ".model.safetensors2.0123456789abcdef.partial",
    ]
    for name in (".run.json.0123456789abcdef.partial", ".samples-32.png.0123456789abcdef.partial", *others):
        (tmp_path / name).write_text("{")
    folder = RunFolder(tmp_path)
    with pytest.raises(InputError, match="is not a run of train"):
        folder.check({"batch": 512})
    (tmp_path / others[1]).rename(tmp_path / ".state.pt.fedcba9876543210.partial")
    folder.check({"batch": 512})
    folder.begin({"batch": 512})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["run.json", others[0], others[2]])
    assert json.loads((tmp_path / "run.json").read_text())["run"] == {"batch": 512}


def test_state_comes_back(run_folder):
    assert run_folder.load_state(CPU) is None
    run_folder.save_state({"weights": {"a": torch.arange(3)}, "seconds": 1.5, "history": [{"loss": 0.5}]})
    state = run_folder.load_state(CPU)
    assert state["weights"]["a"].tolist() == [0, 1, 2]
    assert (state["seconds"], state["history"]) == (1.5, [{"loss": 0.5}])


class Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it was run')",))


def test_a_damaged_state_is_refused(run_folder):
    file = run_folder.path / "state.pt"
    run_folder.save_state({"weights": torch.zeros(1000)})
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], b"hello"):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"state.pt is damaged \(.*\); remove it to begin the run anew"):
            run_folder.load_state(CPU)
    for content in (Harmful(), {"format": "other"}, [1]):
        torch.save(content, file)
        with pytest.raises(InputError, match=r"state.pt is damaged"):
            run_folder.load_state(CPU)


def test_a_save_that_fails_leaves_the_last_one(run_folder):
    run_folder.save_state({"seconds": 1.0})
    with pytest.raises(Exception, match="lambda"):
        run_folder.save_state({"seconds": lambda: 0})
    assert run_folder.load_state(CPU)["seconds"] == 1.0
    assert not list(run_folder.path.glob(".*"))
