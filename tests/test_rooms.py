"""The rooms of the package: imports go one way, and no file imports itself by way of others."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import restart_sampling

PACKAGE = Path(restart_sampling.__file__).parent
ABOVE = {
    "base": set(),
    "sampling": {"base"},
    "models": {"base", "sampling"},
    "images": {"base", "sampling"},
    "evaluation": {"base", "sampling", "models", "images"},
    "generation": {"base", "sampling", "models", "images", "evaluation"},
    "text_to_image": {"base", "sampling", "models", "images", "evaluation", "generation"},
    "comparison": {"base", "sampling", "models", "images", "evaluation", "generation", "text_to_image"},
}
ABOVE["tuning"] = {*ABOVE["comparison"], "comparison"}
ABOVE["pictures"] = {*ABOVE["tuning"], "tuning"}
ABOVE["training"] = {*ABOVE["pictures"], "pictures"}
ABOVE["app"] = {*ABOVE["pictures"], "pictures"}
ABOVE["cli"] = {*ABOVE["training"], "training", "app"}
"""Of each room, those that it may import."""


@cache
def modules():
    return {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}


def imports(path):
    """Modules of the package that a file names in its imports, those within functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("restart_sampling"):
            module = node.module.removeprefix("restart_sampling").removeprefix(".")
            for name in node.names:
                inner = f"{module}.{name.name}" if module else name.name
                yield inner if inner in modules() else module
        elif isinstance(node, ast.Import):
            for name in node.names:
                if name.name.startswith("restart_sampling."):
                    yield name.name.removeprefix("restart_sampling.")


def test_every_room_is_in_the_picture():
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms == ABOVE.keys()


def test_imports_go_one_way():
    wrong = [
        f"{name} imports {target}"
        for name, path in modules().items()
        if (room := name.partition(".")[0]) in ABOVE
        for target in imports(path)
        if (other := target.partition(".")[0]) in ABOVE and other != room and other not in ABOVE[room]
    ]
    assert not wrong


def test_no_circle():
    names = modules()
    graph = {}
    for name, path in names.items():
        found = {target if target in names else f"{target}.__init__" for target in imports(path)}
        graph[name] = {target for target in found if target in names} - {name}
    TopologicalSorter(graph).prepare()  # raises CycleError
