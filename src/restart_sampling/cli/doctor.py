"""`restart-sampling doctor`: what is installed, what it runs on, and whether it works."""

from __future__ import annotations

import re
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import click

from restart_sampling.base.errors import one_line
from restart_sampling.base.machine import describe_device, versions
from restart_sampling.base.numbers import counted
from restart_sampling.cli import Command
from restart_sampling.cli.options import json_option, pick_device, print_json

_EXTRA = re.compile(r"""([\w.-]+).*extra == ["']([\w-]+)["']""")
_FOR_DEVELOPERS = "dev"
_NAME = "restart-sampling"
_PROJECT = Path(__file__).parents[3] / "pyproject.toml"


@click.command(cls=Command)
@json_option
def doctor(as_json: bool) -> int:
    """Say what is installed and missing, and whether a model draws.

    Also which machine it runs on, and where files are kept.

    \b
      python -m restart_sampling doctor
    """
    import torch

    import restart_sampling as rs
    from restart_sampling.base.download import cache_folder

    chip, problem = pick_device("auto"), ""
    found: dict[str, Any] = {
        "package": str(Path(rs.__file__).parent),
        "python": sys.executable,
        "versions": versions(),
        "device": describe_device(chip),
        "devices": torch.accelerator.device_count() if chip.type != "cpu" else 1,
        "threads": torch.get_num_threads(),
        "cache": {str(path): _bytes(path) for path in (cache_folder(), _hub_cache()) if path.is_dir()},
        "extras": _extras(),
    }
    try:
        start = time.perf_counter()
        next(rs.generate(rs.load_model("cifar10-small", device=chip), "2 solver=euler", range(4)))
        found["draws"] = f"4 images in {time.perf_counter() - start:.1f} s with cifar10-small"
    except Exception as error:  # whatever it is, it is what the user wants to know
        problem = one_line(error)
        found["draws"] = f"no: {problem}"
    if as_json:
        print_json(found)
    else:
        _print(found)
    return 1 if problem else 0


def _extras() -> dict[str, dict[str, str | None]]:
    """Lists the packages of each extra, with their versions; None is missing."""
    extras: dict[str, dict[str, str | None]] = {}
    for package, extra in _needed():
        if extra != _FOR_DEVELOPERS and package != _NAME:
            extras.setdefault(extra, {})[package] = _version(package)
    return extras


def _needed() -> Iterator[tuple[str, str]]:
    """Yields package and extra, those of the source tree where that is what runs: what is installed may be older."""
    if _PROJECT.is_file() and (table := tomllib.loads(_PROJECT.read_text("utf-8"))["project"])["name"] == _NAME:
        for extra, packages in table["optional-dependencies"].items():
            for each in packages:
                yield re.match(r"[\w.-]+", each)[0], extra  # type: ignore[index]
        return
    with suppress(PackageNotFoundError):
        for each in requires(_NAME) or ():
            if match := _EXTRA.match(each):
                yield match[1], match[2]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _hub_cache() -> Path:
    """Finds the cache of huggingface_hub, which diffusers' pipelines and DINOv2 are kept in."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return Path("~/.cache/huggingface/hub").expanduser()
    return Path(HF_HUB_CACHE)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _print(found: dict[str, Any]) -> None:
    rows = {
        "package": found["package"],
        "python": f"{found['versions']['python']}, {found['python']}",
        **{name: number for name, number in found["versions"].items() if name != "python"},
        "device": f"{found['devices']} x {found['device']}, {counted(found['threads'], 'thread')}",
        "cache": "; ".join(f"{path} ({size / 1e6:.0f} MB)" for path, size in found["cache"].items()) or "empty",
        "draws": found["draws"],
    }
    for extra, packages in found["extras"].items():
        missing = [package for package, at in packages.items() if at is None]
        there = ", ".join(f"{package} {at}" for package, at in packages.items() if at)
        wanted = f"missing: {', '.join(missing)} (pip install 'restart-sampling[{extra}]')" if missing else ""
        rows[f"[{extra}]"] = "; ".join(filter(None, (there, wanted)))
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        click.echo(f"{name:{width}}{value}")
