"""What bug reports and shells ask of the command: `doctor`, `--version`, completion."""

import json

import pytest
import torch
from click.testing import CliRunner

import restart_sampling as rs
from restart_sampling.cli import cli, doctor


def test_doctor_says_what_is_there_and_what_is_missing(run, monkeypatch, tmp_path):
    needed = [
        "torch>=2.10",
        'optuna>=4.4; extra == "tune"',
        "no-such-thing>=1; extra == 'tune'",
        'ruff; extra == "dev"',
    ]
    monkeypatch.setattr(doctor, "requires", lambda package: needed)
    monkeypatch.setattr(doctor, "_PROJECT", tmp_path / "pyproject.toml")
    code, out, _ = run("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["versions"]["restart-sampling"] == rs.__version__
    assert found["extras"].keys() == {"tune"}
    assert found["extras"]["tune"]["no-such-thing"] is None
    assert found["draws"].startswith("4 images in ")
    monkeypatch.setattr(rs, "load_model", lambda name, device: 1 / 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    code, out, _ = run("doctor")
    assert code == 1
    assert ", 1 thread\n" in out
    assert "missing: no-such-thing (pip install 'restart-sampling[tune]')" in out
    assert "no: ZeroDivisionError: division by zero" in out
    # The source tree's own list, where that is what runs; its extras that hold others are not packages.
    extras = '[project.optional-dependencies]\nnew = ["not-there>=1", "torch"]\nall = ["restart-sampling[new]"]\n'
    for name, listed in (("restart-sampling", {"new"}), ("another", {"tune"})):
        (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n{extras}')
        assert json.loads(run("doctor", "--json")[1])["extras"].keys() == listed


def test_the_version_is_the_packages(run):
    assert run("--version")[1] == f"restart-sampling, version {rs.__version__}\n"


@pytest.mark.parametrize(
    ("words", "completed"), [("do", "doctor"), ("generate --dry", "--dry-run"), ("sweep --log ten", "tensorboard")]
)
def test_the_shell_completes(words, completed):
    environment = {
        "_RESTART_SAMPLING_COMPLETE": "bash_complete",
        "COMP_WORDS": f"restart-sampling {words}",
        "COMP_CWORD": str(len(words.split())),
    }
    done = CliRunner().invoke(cli, prog_name="restart-sampling", env=environment)
    assert done.output == f"plain,{completed}\n"
