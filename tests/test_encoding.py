"""Text files are in UTF-8, whatever the locale is."""

import ast
from pathlib import Path

import restart_sampling

PACKAGE = Path(restart_sampling.__file__).parent
PROJECT = Path(__file__).parents[1]
PLACES = (PACKAGE, *(PROJECT / name for name in ("integrations", "benchmarks", "examples", "docs")))
FUNCTIONS = {"read_text": 0, "write_text": 1, "open": 3, "fdopen": 3, "TemporaryFile": 3, "NamedTemporaryFile": 3}
"""Functions that read or write text, and where the encoding is among their positional arguments."""
NO_TEXT = ("Image.open", "tarfile.open", "gzip.open", "archive.open", "zip.open", "measures.open")


def in_the_locales_encoding(program):
    """Lines of calls that leave the encoding of a text to the locale."""
    for node in ast.walk(ast.parse(program)):
        if not isinstance(node, ast.Call) or any(each.arg == "encoding" for each in node.keywords):
            continue
        name = ast.unparse(node.func)
        function = name.rpartition(".")[2]
        given = [*node.args, *(each.value for each in node.keywords if each.arg == "mode")]
        words = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        default = ["w+b"] if function.endswith("TemporaryFile") else ["r"]
        binary = any("b" in word for word in words or default if set(word) <= set("rwxab+"))
        if len(node.args) <= FUNCTIONS.get(function, -1) and not binary and not name.endswith(NO_TEXT):
            yield node.lineno


def test_no_text_is_in_the_locales_encoding():
    for wrong in ("path.read_text()", "path.write_text(x)", "path.open()", "open(x, 'w')", "TemporaryFile('w+')"):
        assert list(in_the_locales_encoding(wrong)) == [1], wrong
    files = [path for place in PLACES for path in place.rglob("*.py")]
    assert all(any(place in path.parents for path in files) for place in PLACES)
    assert not [f"{path}:{line}" for path in files for line in in_the_locales_encoding(path.read_text("utf-8"))]
