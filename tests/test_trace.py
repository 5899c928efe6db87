"""How much runs on the way from a command to its images or values: small rooms, short ways, and no compiler."""

import json
import subprocess
import sys

MOST = {
    39: ("generate", "--model", "tiny.safetensors", "--plan", "2", "--seeds", "0", "--out", "images"),
    56: (
        *("evaluate", "--model", "tiny.safetensors", "--plan", "2", "--seeds", "0-23"),
        *("--reference", "ref.npz", "--detector", "tiny.pt", "--trust-detector"),
    ),
}
"""Commands, by the number of files that may be on the way of each."""
TRACE = """
import json, sys, threading
from pathlib import Path
import restart_sampling

package, files = str(Path(restart_sampling.__file__).parent), set()


def note(frame, event, argument):
    code = frame.f_code
    # Functions, and not the bodies of modules and classes, which run when they are imported, nor annotations.
    named = code.co_flags & 1 and code.co_name[0] != "<" and code.co_name != "__annotate__"
    if event == "call" and code.co_filename.startswith(package) and named:
        files.add(code.co_filename.removeprefix(package))


from restart_sampling.cli import main

for words in json.loads(sys.argv[1]):
    files.clear()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        main(words)
    except SystemExit as end:
        sys.setprofile(None)
        print(json.dumps([end.code, "torch._dynamo" in sys.modules, sorted(files)]))
"""


def test_few_files_are_on_the_way(place):
    words = [sys.executable, "-c", TRACE, json.dumps([*MOST.values()])]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    for most, (code, has_compiler, files) in zip(MOST, lines, strict=True):
        assert code == 0, done.stderr
        assert 10 < len(files) <= most, "\n".join(files)
        assert not has_compiler  # torch's, which takes a second to import
