"""What the site has beside docs/*.md: the commands' help, the notebooks run, and files from outside this folder."""

import contextlib
import inspect
import io
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
from matplotlib import pyplot as plt
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from restart_sampling.cli import cli

ROOT = Path(__file__).parents[1]
OUTSIDE = (
    "CHANGELOG.md",
    "LICENSE",
    "benchmarks/*.*",
    "benchmarks/results/**/*.*",
    "examples/*.py",
    "src/restart_sampling/models/weights/*.md",
)
"""Pages, and files that pages link to; on the site they lie where they lie in the project."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what lies outside, and a page for each notebook."""
    for path in sorted(path for pattern in OUTSIDE for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path), inclusion=InclusionLevel.NOT_IN_NAV))
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        page = "\n\n".join(run_notebook(Path(str(file.abs_src_path))))
        files.append(File.generated(config, file.src_uri.replace(".ipynb", "-notebook.md"), content=page))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to what lies outside, which is at the top of the site, and writes the commands' help."""
    if page.file.src_uri == "commands.md":
        markdown += "\n\n" + "\n\n".join(describe(cli, click.Context(cli, info_name="restart-sampling"), 2))
    if "/" in page.file.src_uri:
        return markdown
    return re.sub(r"\[([^]]+)\]\(\.\./([^)]+)\)", _link, markdown)


def run_notebook(path: Path) -> Iterator[str]:
    """Runs the code of a notebook; yields its cells as Markdown, each with what it prints and plots."""
    mpl.use("agg")
    names: dict[str, Any] = {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield source
            continue
        yield f"```python\n{source}\n```"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(source, path.name, "exec"), names)
        if printed.getvalue():
            yield f"```text\n{printed.getvalue().rstrip()}\n```"
        for number in plt.get_fignums():
            picture = io.BytesIO()
            plt.figure(number).savefig(picture, format="png", dpi=150)
            plt.close(number)
            yield f"![What the cell above plots](data:image/png;base64,{b64encode(picture.getvalue()).decode()})"


def describe(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """Yields the help of a command, and of those below it, as Markdown."""
    if level > 2:
        yield f"{'#' * (level - 1)} {context.command_path.removeprefix('restart-sampling ')}"
    yield f"```text\n{context.command_path} {' '.join(command.collect_usage_pieces(context))}\n```"
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        yield f"```bash\n{inspect.cleandoc(paragraph[2:])}\n```" if paragraph.startswith("\b\n") else _plain(paragraph)
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and record[1] and parameter.name != "help":
            yield f"`{record[0]}`\n:   {_plain(record[1])}"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below
            yield from describe(below, click.Context(below, info_name=name, parent=context), level + 1)


def _link(found: re.Match[str]) -> str:
    """Links to a file at the top of the site; a folder has no page."""
    return found[1] if (ROOT / found[2]).is_dir() else f"[{found[1]}]({found[2]})"


def _plain(text: str) -> str:
    """Escapes what Markdown would read as its own."""
    return re.sub(r"([\\`*_\[\]#])", r"\\\1", text).replace("<", "&lt;")
