"""The documentation: its examples run, its commands are commands, its links lead somewhere, and the site builds."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
import torch

import restart_sampling as rs
from copies import start
from restart_sampling.cli import cli
from restart_sampling.sampling.plan import Plan
from restart_sampling.text_to_image.samplers import Sampler

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
TEXT = "\n".join(PAGES.values())
COMMANDS = re.findall(r"^(?:\$ |torchrun .* -m )?restart[-_]sampling (.+?)(?:\s+#.*)?$", TEXT, re.MULTILINE)
INLINE = re.findall(r"`restart-sampling ([a-z][^`]+)`", TEXT)
EXAMPLES = [
    pytest.param(example, id=name)
    for name, page in PAGES.items()
    if name not in ("README.md", "diffusers.md")  # test_readme.py, text_to_image/test_diffusers_page.py
    for example in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    if not re.search(r"hf://|restart_sampling\.app", example)  # need the hub, and Gradio
]
READER = {
    "alphas_cumprod": torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0),
    **dict.fromkeys(("unet", "small_unet"), lambda x, _t, **_conditions: x),
    **dict.fromkeys(("prompt", "nothing"), torch.zeros(1, 77, 8)),
}
"""What examples take for given: whatever a reader has."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_python_examples_run(example, capsys):
    names = dict(READER)
    exec(compile(example, "docs", "exec"), names)
    if example.startswith("# net.py"):
        net, shape = names["make"]()
        assert rs.sample(net, "2", [0], shape).shape == (1, *shape)
    else:
        assert capsys.readouterr().out or "print(" not in example


@pytest.mark.parametrize("command", sorted({" ".join(command.split()) for command in (*COMMANDS, *INLINE)}))
def test_commands_are_understood(command, tmp_path, monkeypatch):
    (tmp_path / "tuned").mkdir()  # a folder that `app` looks for
    monkeypatch.chdir(tmp_path)
    context = cli.make_context("restart-sampling", shlex.split(command))
    while isinstance(context.command, click.Group):
        name, found, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = found.make_context(name, rest, parent=context)
    given = context.params
    for plan in filter(None, (given.get("plan_text"), *given.get("plan_texts", ()), " ".join(given.get("words", ())))):
        if not plan.endswith(".json"):  # a file that `tune` would write
            Plan.parse(plan)
    for sampler in given.get("sampler_texts", ()):
        Sampler.parse(sampler)


def test_the_plan_that_is_shown_is_what_the_command_prints():
    shown = re.search(r"```text\n\$ restart-sampling plan \"(.+?)\"\n(.*?)```", PAGES["plans.md"], re.DOTALL)
    assert Plan.parse(shown[1]).explain() == shown[2].strip()


def test_plans_in_tables_are_plans():
    table = PAGES["plans.md"].split("| plan | sampler |")[1].split("\n\n")[0]
    plans = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(plans) == 5
    for plan in plans:
        Plan.parse(plan).path()


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README.md"])
def test_a_page_says_first_what_it_is_for(name):
    assert re.match(r"# \S[^\n]*\n\n[A-Z][^\n]{40,}", PAGES[name])


def test_every_public_name_is_in_the_reference():
    shown = set(re.findall(r"^::: restart_sampling\.(\w+)$", PAGES["api.md"], re.MULTILINE))
    public = {*rs.__all__, "FlowMatchRestartScheduler", "RestartScheduler"} - {"__version__", "text_to_image"}
    assert shown == public


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.ipynb")), ids=lambda path: path.name)
def test_notebooks_are_kept_without_their_outputs(path):
    assert path.stat().st_size < 30_000
    assert not any(cell.get("outputs") for cell in json.loads(path.read_text())["cells"])


def test_links_of_the_readme_lead_to_files():
    for link in re.findall(r"\]\(((?!https?:|#)[^)#]+)", PAGES["README.md"]):
        assert (ROOT / link).exists(), link


def test_make_release_looks_for_what_contributing_says_that_the_owner_fills_in():
    _, list_of_lines = (ROOT / "CONTRIBUTING.md").read_text().split("## Before a release")
    listed = re.findall(r"^\| `(.+?)` \| `(.+?)(?:\.\.\.)?` \|", list_of_lines, re.MULTILINE)
    (files,) = re.findall(r"grep -Hn OWNER (.+?);", (ROOT / "Makefile").read_text())
    assert set(files.split()) == {file for file, _ in listed}
    for file in files.split():
        known = tuple(start for name, start in listed if name == file)
        for line in (ROOT / file).read_text().splitlines():
            assert "OWNER" not in line or line.startswith(known), f"{file}: {line}"


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path, monkeypatch):
    """Strict: a link or an anchor that leads nowhere, or a page that is in no menu, is an error. Runs the notebooks."""
    for name, value in (
        ("NO_MKDOCS_2_WARNING", "1"),
        ("http_proxy", "http://nowhere"),
        ("https_proxy", "http://nowhere"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    process = start("-m", "mkdocs", "build", "--site-dir", tmp_path / "site")
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    pages = {path.name: path.read_text() for path in (tmp_path / "site").rglob("*.html") if path.name != "report.html"}
    assert pages.keys() >= {Path(name).with_suffix(".html").name for name in PAGES if name != "README.md"}
    for name, page in pages.items():
        assert not re.search(r"<(?:script|link|img)\b[^>]*(?:src|href)=.?(?:https?:)?//", page), name
    assert "--guidance FLOAT" in pages["commands.html"]
    assert "[1&lt;=x&lt;=65535]" in pages["commands.html"]
    for notebook in ("own-network-notebook.html", "choose-a-plan-notebook.html"):
        assert 'src="data:image/png' in pages[notebook]
