"""How much runs on the way from a command to its images or values: small rooms, short ways, and no compiler."""

import subprocess
import sys

import pytest

TRACE = """
import sys, threading
from pathlib import Path
import restart_sampling

package, files = str(Path(restart_sampling.__file__).parent), set()


def note(frame, event, argument):
    code = frame.f_code
    # Functions, and not the bodies of modules and classes, which run when they are imported.
    if event == "call" and code.co_filename.startswith(package) and code.co_flags & 1 and code.co_name[0] != "<":
        files.add(code.co_filename.removeprefix(package))


from restart_sampling.cli import main

threading.setprofile(note)
sys.setprofile(note)
try:
    main()
except SystemExit as end:
    sys.setprofile(None)
    print("\\n".join(sorted(files) + [name for name in sys.modules if name == "torch._dynamo"]))
    sys.exit(end.code)
"""


@pytest.mark.parametrize(
    ("most", "command"),
    [
        (37, ("generate", "--model", "tiny.safetensors", "--plan", "2", "--seeds", "0", "--out", "images")),
        (
            52,
            (
                *("evaluate", "--model", "tiny.safetensors", "--plan", "2", "--seeds", "0-23"),
                *("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector"),
            ),
        ),
    ],
)
def test_few_files_are_on_the_way(most, command, place):
    done = subprocess.run([sys.executable, "-c", TRACE, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    files = [line for line in done.stdout.splitlines() if line.startswith("/")]
    assert 10 < len(files) <= most, "\n".join(files)
    assert "torch._dynamo" not in done.stdout  # torch's compiler, which takes a second to import
