"""The command line as users meet it: what it prints, what it leaves, and how it answers bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import get_args

import click
import pytest
from PIL import Image

import restart_sampling as rs
from restart_sampling.base.errors import InputError
from restart_sampling.cli import cli
from restart_sampling.cli.sampler_options import _class_number
from restart_sampling.comparison.published import CHECKPOINTS
from restart_sampling.comparison.table import FORMATS
from restart_sampling.generation.net_drawing import NoiseKind
from restart_sampling.images.transforms import Crop
from restart_sampling.models.read_checkpoint import read_checkpoint
from restart_sampling.models.write_checkpoint import write_safetensors
from restart_sampling.pictures.kinds import KINDS
from restart_sampling.training.losses import PARAMETRIZATIONS
from sweeps import result, results_file

WEIGHTS = Path(rs.__file__).parent / "models" / "weights" / "cifar10-small.safetensors"


def generate(run, *arguments):
    plan = ("--plan", "cifar10-small-20", "--set", "steps=2", "--set", "rho=3")
    return run("generate", "--model", "cifar10-small", *plan, *arguments)


def every_command(command=cli, path=()):
    """The words of each command and group, with itself."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from every_command(command.get_command(context, name), (*path, name))


def test_what_needs_no_tensor_starts_without_torch(tmp_path):
    """All help, and the commands that list and print; torch takes seconds to import."""
    results_file(result("18", 1.0), name=tmp_path / "results.jsonl")
    helps = [[*path, "--help"] for path, _ in every_command()]
    lists = [["plan", "--list"], ["model", "list"], ["results", "table", str(tmp_path)], ["--version"]]
    code = f"""
import sys
from restart_sampling.cli import main
for modules, commands in ({{"torch", "numpy", "rich", "diffusers"}}, {helps}), ({{"torch", "diffusers"}}, {lists}):
    for words in commands:
        try:
            main(words)
        except SystemExit as end:
            found = modules & set(sys.modules)
            if found or end.code:
                sys.exit(f"{{words}} ends with {{end.code}} and imports {{found}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(helps) > 25


def test_lists_of_commands_have_whole_sentences(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    groups = [(path, command) for path, command in every_command() if isinstance(command, click.Group)]
    for path, group in groups:
        out = run(*path, "--help")[1]
        for name in group.list_commands(click.Context(group)):
            [line] = re.findall(rf"^  {name} +(.*)$", out, re.MULTILINE)
            assert re.search(r"[^.]\.$", line), line
    assert [path for path, _ in groups] == [(), ("model",), ("results",), ("text",)]


def test_python_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "restart_sampling", "plan", "18 [3,2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("restart-sampling: plan '18 [3,2': cannot read")
    assert len(done.stderr.splitlines()) == 1


def test_plan_explains(run):
    for words in (["18 [3,2,0.06,0.30]"], ["18", "[3,2,0.06,0.30]"]):
        code, out, _ = run("plan", *words, "--set", "gamma=0.05")
        assert code == 0
        assert "NFE        43" in out
    result = json.loads(run("plan", "18 [3,2,0.06,0.30]", "--set", "gamma=0.05", "--json")[1])
    assert (result["plan"], result["nfe"]) == ("18 [3,2,0.06,0.3] gamma=0.05", 43)
    assert result["levels"][0] == 80.0


def test_plan_explains_for_a_model(run):
    code, out, _ = run("plan", "18", "--model", "cifar10-small")
    assert code == 0
    assert "main grid  18 steps: 80" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--list", "18"), "PLAN is for a plan; leave it out with --list"),
        (("--list", "--set", "rho=3"), "--set is for a plan; leave it out with --list"),
        (("--list", "--model", "cifar10-small"), "--model is for a plan; leave it out with --list"),
        (("--list", "--any-model"), "--any-model is for a plan; leave it out with --list"),
        (("18", "--any-model"), "--any-model is for the --model that a plan is explained for"),
    ],
)
def test_what_does_nothing_beside_a_plan_is_refused(words, said, run):
    code, out, err = run("plan", *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"restart-sampling: {said}")


def test_presets_are_listed(run):
    code, out, _ = run("plan", "--list")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert set(rs.PRESETS) <= set(lines)
    assert "2.70" in lines["cifar10-vp-43"]
    listed = json.loads(run("plan", "--list", "--json")[1])["presets"]
    assert {entry["name"]: entry["nfe"] for entry in listed} == {
        name: preset.nfe for name, preset in rs.PRESETS.items()
    }


def test_generate_writes_a_folder(run, tmp_path):
    out = tmp_path / "images"
    code, stdout, stderr = generate(run, "--seeds", "7,0-1", "--out", out, "--class", "frog", "--json")
    assert code == 0
    result = json.loads(stdout)
    assert (result["images"], result["drawn"], result["nfe"], result["out"]) == (3, 3, 2 + 4, str(out))
    assert "NFE" in stderr
    assert "float32" in stderr
    assert sorted(path.name for path in (out / "000000").iterdir()) == ["000000.png", "000001.png", "000007.png"]
    with Image.open(out / "000000" / "000007.png") as image:
        assert (image.size, image.mode) == ((32, 32), "RGB")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert manifest["run"]["plan"] == "2 [5,1,1.09,3.2] solver=ab rho=3"
    assert manifest["run"]["class"] == 6
    assert manifest["run"]["arithmetic"] == "float32"
    assert len(manifest["run"]["model_sha256"]) == 64
    assert set(manifest["versions"]) >= {"restart-sampling", "torch", "python"}
    assert json.loads((out / "dataset.json").read_text())["labels"][0] == ["000000/000007.png", 6]


def test_generate_writes_the_same_images_to_a_zip(run, tmp_path):
    for name in ("images", "images.zip"):
        assert generate(run, "--seeds", "0-1", "--out", tmp_path / name, "--batch", 1)[0] == 0
    with zipfile.ZipFile(tmp_path / "images.zip") as archive:
        for seed in (0, 1):
            name = f"000000/{seed:06d}.png"
            assert archive.read(name) == (tmp_path / "images" / name).read_bytes()
        assert json.loads(archive.read("manifest.json"))["complete"] is True


def test_the_same_command_runs_again_and_another_is_refused(run, tmp_path):
    out = tmp_path / "images"
    assert generate(run, "--seeds", "0", "--out", out)[0] == 0
    assert generate(run, "--seeds", "0", "--out", out)[0] == 0
    code, _, stderr = generate(run, "--seeds", "0", "--out", out, "--guidance", "2")
    assert code == 2
    assert "another run, with guidance 1.0, not 2.0" in stderr


def test_guidance_counts_both_evaluations(run, tmp_path):
    code, _, stderr = generate(run, "--seeds", "0", "--out", tmp_path / "a", "--guidance", "1.5")
    assert code == 0
    assert "NFE     6 (12 network evaluations with guidance 1.5)" in stderr
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["network_evaluations"] == 12


def test_demo_draws_one_picture_and_one_table(run, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "restart_sampling.cli.demo.SAMPLERS",
        {"ODE": "3", "SDE": "3 churn=1", "Restart": "2 [2,1,1.09,3.2] rho=3"},
    )
    out = tmp_path / "new" / "demo.png"
    code, stdout, _ = run("demo", "--out", out, "--seeds", "0-3", "--json")
    assert code == 0
    assert [row["nfe"] for row in json.loads(stdout)["samplers"]] == [5, 5, 5]
    with Image.open(out) as picture:
        assert picture.width > 2 * picture.height
        assert len(picture.convert("RGB").getcolors(2**24)) > 1000
    code, stdout, _ = run("demo", "--model", "cifar10-vp-small", "--out", out, "--seeds", "0")
    assert code == 0
    assert "images/s" in stdout


def test_an_option_is_given_once_in_all_commands(run):
    """But for those that may be repeated; flags count as others do."""
    for path, command in every_command():
        for option in command.params:
            if not isinstance(option, click.Option) or option.is_eager or option.multiple:
                continue
            words = [option.opts[0]] if option.is_flag else [option.opts[0], "1"]
            said = f"restart-sampling: {words[0]} is given twice; give it once\n"
            assert run(*path, *words, *words) == (2, "", said)
            assert run(*path, *words, *words, "--help")[0] == 0
    assert run("generate", "--compile", "--exact", "--no-compile")[2] == (
        "restart-sampling: --compile and --no-compile exclude each other; give one of them\n"
    )


def test_what_is_missing_or_does_not_exist_is_one_line_with_what_there_is(run):
    for words, said in (
        (("train", "images", "--out", "run"), "Missing option '--parametrization'. Choose from: edm, vp, pfgmpp"),
        (("plans",), f"there is no command 'plans'; give one of {', '.join(cli.list_commands(click.Context(cli)))}"),
        (("results", "plot"), "there is no command 'plot'; give one of table"),
    ):
        assert run(*words) == (2, "", f"restart-sampling: {said}\n")


def test_choices_are_those_of_the_code():
    """They are written out in the commands, which import nothing heavy for their help."""

    def choices(name, option):
        command = cli
        for word in name.split():
            command = command.get_command(None, word)
        return next(each.type.choices for each in command.params if each.name == option)

    assert [*choices("sweep", "paper")] == [*CHECKPOINTS]
    assert [*choices("figure", "paper")] == [*CHECKPOINTS, "stable-diffusion"]
    assert [*choices("figure", "kind")] == [*KINDS, "text"]
    assert [*choices("results table", "form")] == [*FORMATS]
    assert [*choices("generate", "noise")] == [*get_args(NoiseKind)]
    assert [*choices("dataset", "transform")] == [*get_args(Crop)]
    assert [*choices("train", "parametrization")] == [*PARAMETRIZATIONS]


BAD = {
    "t_min >= t_max": (["--plan", "18 [3,2,0.3,0.3]"], "t_min < t_max"),
    "N_restart < 2": (["--plan", "18 [1,2,0.1,0.3]"], "N_restart = 1"),
    "K < 1": (["--plan", "18 [3,0,0.1,0.3]"], "K = 0"),
    "t_min snaps above t_max": (["--plan", "18 [3,2,0.1,0.12]"], "which is not below t_max"),
    "t_max above sigma_max": (["--plan", "18 [3,2,0.1,90]"], "t_max is above sigma_max"),
    "two intervals on one level": (["--plan", "18 [3,2,.1,.3] [3,2,.11,.4]"], "both snap to level"),
    "not a number": (["--plan", "18 [3,2,nan,0.3]"], "finite"),
    "malformed plan": (["--plan", "18 [3,2"], "cannot read '[3,2'"),
    "unknown key": (["--plan", "18", "--set", "colour=3"], "unknown key 'colour'"),
    "unknown preset": (["--plan", "cifar10-vp-44"], "nearest: cifar10-vp-43"),
    "missing solver": (["--plan", "18 solver=magic"], "solver 'magic' does not exist"),
    "a setting twice": (["--set", "rho=5", "--set", "rho=6"], "--set rho is given twice; give it once"),
    "no value": (["--plan", "18", "--set", "rho"], "write KEY=VALUE"),
    "no key": (["--plan", "18", "--set", "=3"], "write KEY=VALUE"),
    "steps beyond sense": (["--plan", "99999999999"], "give 1 to 100,000"),
    "restarts beyond sense": (["--plan", "18 [1000000,1000000,0.06,0.3]"], "at most 100,000"),
    "seeds beyond sense": (["--seeds", "0-99999999999999"], "more than 10,000,000"),
    "malformed seeds": (["--seeds", "5-x"], "cannot read '5-x'"),
    "seeds backwards": (["--seeds", "9-3"], "ends before it begins"),
    "no plan for another model": (["--model", "edm-cifar10-32x32-uncond-vp"], "--plan is missing"),
    "unknown model": (["--model", "nothing-of-this-name", "--plan", "4"], "nothing-of-this-name"),
    "batch": (["--batch", "0"], "--batch"),
    "unknown noise": (["--noise", "pink"], "--noise"),
    "device": (["--device", "tpu"], "--device"),
    "unknown option": (["--stepz", "3"], "--stepz"),
    "exact in half precision": (["--dtype", "float16", "--exact"], "--exact is for float32"),
    "compiled for the CPU": (["--device", "cpu", "--compile"], "--compile is for NVIDIA devices"),
    "autotuned for the CPU": (["--device", "cpu", "--autotune"], "--autotune is for NVIDIA devices"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_before_a_model_is_loaded(case, run, tmp_path, monkeypatch):
    monkeypatch.setattr("restart_sampling.models.read_checkpoint.read_checkpoint", lambda path: pytest.fail("loaded"))
    arguments, message = BAD[case]
    standard = {"--model": "cifar10-small", "--seeds": "0-3", "--out": tmp_path / "out"}
    for name in arguments[::2]:
        standard.pop(name, None)
    code, out, err = run("generate", *(word for pair in standard.items() for word in pair), *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class", "10"], "class 10 is out of range; the model has classes 0 to 9"),
        (["--guidance", "nan"], "guidance is nan"),
        (["--guidance", "inf"], "guidance is inf"),
        (["--class", "zebra"], "--class zebra: give the number of a class, or one of airplane, automobile"),
    ],
)
def test_what_does_not_fit_the_model_is_one_sentence(arguments, message, run, tmp_path):
    code, out, err = generate(run, "--seeds", "0", "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


NUMBERS = ("0", "1", "10", "2", "name=0")
"""Names of classes: 10 is class 2, and 2 is class 3."""


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("3", 3), ("10", 2), ("name=2", 3), ("number=2", 2), ("number=3", 3), ("name=0", 4), ("name=name=0", 4)],
)
def test_a_class_is_its_number_or_its_name(text, number):
    assert _class_number(text, NUMBERS) == number


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2", "--class 2 is the number of class '10' and the name of class 3; write number=2 or name=2"),
        ("name=3", "--class name=3: give the number of a class, or one of 0, 1, 10, 2"),
        ("number=cat", "--class number=cat: give the number of a class"),
        ("1_0", "--class 1_0: give the number of a class"),
        ("\u00b2", "--class \u00b2: give the number of a class"),
    ],
)
def test_a_class_that_is_not_clear_is_refused(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        _class_number(text, NUMBERS)


def test_a_name_of_several_classes_is_refused():
    cranes = ("crane", "cat", "crane")
    with pytest.raises(InputError, match="--class crane is the name of classes 0, 2; write number=0"):
        _class_number("crane", cranes)
    assert _class_number("number=2", cranes) == 2


@pytest.mark.parametrize("out", ["file/sub", "file/x.zip", "/proc/images", "/proc/x.zip"])
def test_a_place_that_cannot_be_written_is_refused_before_work(out, run, tmp_path):
    (tmp_path / "file").write_text("x")
    code, _, err = generate(run, "--seeds", "0", "--out", tmp_path / out)
    assert code == 2
    assert err.startswith("restart-sampling: ")
    assert len(err.splitlines()) == 1
    for arguments in (["demo", "--out", tmp_path / "file/demo.png"], ["demo", "--out", tmp_path / "demo.jpg"]):
        code, _, err = run(*arguments)
        assert code == 2
        assert len(err.splitlines()) == 1


def test_progress_off_a_terminal_is_a_line_now_and_then(run, tmp_path, monkeypatch):
    monkeypatch.setattr("restart_sampling.cli.progress.SECONDS_BETWEEN_LINES", 0.0)
    err = generate(run, "--seeds", "0-2", "--out", tmp_path / "images", "--batch", 2)[2]
    assert "images: 2 of 3" in err
    assert "images: 3 of 3" in err


def test_a_result_that_is_not_finite_stops_the_run(run, tmp_path, monkeypatch):
    checkpoint = read_checkpoint(WEIGHTS)
    checkpoint.state["model.dec.32x32_aux_conv.bias"].fill_(float("nan"))
    write_safetensors(checkpoint, tmp_path / "broken.safetensors")
    code, _, err = run(
        "generate",
        "--model",
        tmp_path / "broken.safetensors",
        "--plan",
        "2",
        "--seeds",
        "3",
        "--out",
        tmp_path / "o.zip",
    )
    assert code == 2
    assert "the image of seed 3 is not finite" in err.splitlines()[-1]
    assert not (tmp_path / "o.zip").exists()


def test_a_missing_optional_package_is_one_sentence(run, tmp_path, monkeypatch):
    monkeypatch.setattr("restart_sampling.base.errors.find_spec", lambda package: None)
    code, _, err = run("demo", "--out", tmp_path / "demo.png")
    assert code == 2
    assert err.startswith("restart-sampling: this needs matplotlib")
    assert "pip install 'restart-sampling[figures]'" in err
    assert len(err.splitlines()) == 1


def test_an_interruption_ends_with_130(run, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("restart_sampling.generation.seeds.parse_seeds", interrupt)
    code, _, err = run("generate", "--model", "cifar10-small", "--seeds", "0", "--out", tmp_path / "a")
    assert (code, err.strip()) == (130, "restart-sampling: interrupted; the same command goes on from here")
    code, _, err = run("demo", "--seeds", "0", "--out", tmp_path / "demo.png")
    assert (code, err.splitlines()[-1]) == (130, "restart-sampling: interrupted")
    monkeypatch.setattr("restart_sampling.tuning.settings.Settings.__post_init__", interrupt)
    search = ("--nfe", "10", "--reference", "none.npz", "--out", tmp_path / "b")
    for words in (["tune", "--model", "cifar10-small"], ["text", "tune"]):
        code, _, err = run(*words, *search)
        assert (code, err.strip()) == (130, "restart-sampling: interrupted; the same command goes on from here")


@pytest.mark.parametrize(("number", "status", "said"), [("SIGINT", 130, "interrupted; the"), ("SIGTERM", 143, "")])
def test_what_becomes_of_a_signal_on_its_way_is_not_said(number, status, said, run, tmp_path, monkeypatch):
    """C code, and what tidies up, can end in another error than that which it was given."""

    def in_c(*_):
        try:
            os.kill(os.getpid(), getattr(signal, number))
        except BaseException:
            raise ValueError("could not determine the shape of object type") from None

    monkeypatch.setattr("restart_sampling.generation.seeds.parse_seeds", in_c)
    code, _, err = run("generate", "--model", "cifar10-small", "--seeds", "0", "--out", tmp_path / "a")
    assert code == status
    assert err.startswith(f"restart-sampling: {said}" if said else "")
    assert len(err.splitlines()) == bool(said)


@pytest.mark.parametrize(("number", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_counts_while_an_object_is_taken_apart(number, status, run, tmp_path, monkeypatch):
    """Python drops what is raised there."""

    class Apart:
        def __del__(self):
            os.kill(os.getpid(), getattr(signal, number))

    def take_apart(*_):
        Apart()
        for _ in range(1000):
            time.sleep(0.01)
        raise AssertionError("no signal came")

    monkeypatch.setattr("restart_sampling.generation.seeds.parse_seeds", take_apart)
    hook = sys.unraisablehook
    code, _, err = run("generate", "--model", "cifar10-small", "--seeds", "0", "--out", tmp_path / "a")
    assert code == status
    assert "Exception" not in err
    assert sys.unraisablehook is hook


@pytest.mark.parametrize("where", ["warnings.filterwarnings", "click.echo"])
def test_an_interruption_before_and_after_the_command_is_silent(where, run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"restart_sampling.cli.{where}", interrupt)
    assert run("plan", "nonsense") == (130, "", "")


def test_nothing_is_imported_from_the_current_folder(tmp_path):
    """Where python -m looks first; the programs of others go on to find their own modules there."""
    for name in ("lazy_loader", "click", "rich", "torch", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the current folder was run')")
    command = [sys.executable, "-m", "restart_sampling", "plan", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    own = tmp_path / "own"
    (own / "program").mkdir(parents=True)
    (own / "program" / "__init__.py").write_text("import restart_sampling")
    (own / "program" / "__main__.py").write_text("import beside")
    (own / "beside.py").write_text("print('found')")
    done = subprocess.run([sys.executable, "-m", "program"], cwd=own, capture_output=True, text=True, check=False)
    assert done.stdout == "found\n", done.stderr


def test_lists_never_cut_a_name(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    out = run("plan", "--list")[1]
    assert "\n    16\n    [5,1,1.09,3.2]\n    solver=ab\n" in out
    for preset in rs.PRESETS.values():
        assert any(line.startswith(f"{preset.name} ") and f"{preset.fid or ''}" in line for line in out.splitlines())
        assert preset.checkpoint in out
    out = run("model", "list")[1]
    for name in ("cifar10-small", "edm-imagenet-64x64-cond-adm", "pfgmpp-cifar10-32x32-uncond-2048"):
        assert f"{name} " in out
    listed = json.loads(run("model", "list", "--json")[1])["models"]
    assert listed[0] == {"name": "cifar10-small", "where": "in the package", "plan": "cifar10-small-tuned-20"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("generate", "--model", "cifar10-small", "--seeds", "0", "--out", "frogs.png"), "a folder or a .zip file"),
        (("generate", "--model", "cifar10-small", "--seeds", "0", "--out", "frogs.tar.gz"), "a folder or a .zip file"),
        (("reference", ".", "--out", "stats.pkl"), "the reference is a NPZ file; give a name that ends in .npz"),
        (("report", ".", "--out", "page.pdf"), "it is an HTML file; give a name that ends in .html"),
        (("demo", "--out", "demo.pdf"), "the picture is a PNG file; give a name that ends in .png"),
    ],
)
def test_a_file_is_named_as_what_it_is(words, said, run):
    code, _, err = run(*words)
    assert code == 2
    assert said in err
