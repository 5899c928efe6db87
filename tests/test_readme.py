"""The front door: its examples run, and its commands are commands."""

import re
import shlex
from pathlib import Path

import click
import pytest

import restart_sampling as rs
from restart_sampling.cli import cli
from restart_sampling.sampling.plan import Plan
from restart_sampling.text_to_image.samplers import Sampler

README = (Path(__file__).parents[1] / "README.md").read_text()
TUNE = (Path(__file__).parents[1] / "docs" / "tune.md").read_text()
PAGES = README + TUNE + (Path(__file__).parents[1] / "docs" / "text-to-image.md").read_text()
COMMANDS = re.findall(r"^(?:\$ |torchrun .* -m )?restart[-_]sampling (.+?)(?:\s+#.*)?$", PAGES, re.MULTILINE)
INLINE = re.findall(r"`restart-sampling ((?:text )?(?:generate|preview) .+?)`", README)


@pytest.mark.parametrize("example", re.findall(r"```python\n(.*?)```", README + TUNE, re.DOTALL))
def test_python_examples_run(example, capsys):
    names = {}
    exec(compile(example, "README.md", "exec"), names)
    if example.startswith("# net.py"):
        net, shape = names["make"]()
        assert rs.sample(net, "2", [0], shape).shape == (1, *shape)
    else:
        assert capsys.readouterr().out


def test_there_are_five_short_examples_of_nets():
    examples = re.findall(r"```python\n(.*?)```", README.split("\n## From Python\n")[1].split("\n## ")[0], re.DOTALL)
    examples = [example for example in examples if not example.startswith("# net.py")]  # a file of its own
    assert len(examples) == 5
    assert all(len([line for line in example.splitlines() if line]) < 10 for example in examples)


@pytest.mark.parametrize("command", sorted({*COMMANDS, *INLINE}))
def test_commands_are_understood(command):
    context = cli.make_context("restart-sampling", shlex.split(command))
    while isinstance(context.command, click.Group):
        name, found, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = found.make_context(name, rest, parent=context)
    plan = context.params.get("plan_text") or context.params.get("text")
    if plan and not plan.endswith(".json"):  # a file that `tune` would write
        Plan.parse(plan)
    for sampler in context.params.get("sampler_texts", ()):
        Sampler.parse(sampler)


def test_the_plan_that_is_shown_is_what_the_command_prints():
    shown = re.search(r"```text\n\$ restart-sampling plan \"(.+?)\"\n(.*?)```", README, re.DOTALL)
    assert Plan.parse(shown[1]).explain() == shown[2].strip()


def test_plans_in_tables_are_plans():
    table = README.split("| plan | sampler |")[1].split("\n\n")[0]
    plans = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(plans) == 5
    for plan in plans:
        Plan.parse(plan).path()


def test_links_lead_to_files():
    for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", README):
        assert (Path(__file__).parents[1] / link).exists(), link
