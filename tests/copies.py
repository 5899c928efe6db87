"""Commands in copies of this process, which has imported what they need: a start takes milliseconds, not seconds.

torchrun is torch's own, and starts its processes as such copies, too. What they inherit beside the modules is their
environment, their folder, and the patches of the test that starts them. A signal that comes before a command's own code
has begun waits until then: before, Python itself, which looks for the module, answers Ctrl-C with a traceback, in a
real start too.
"""

import faulthandler
import logging
import math
import os
import pkgutil
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

import torch
import torch.distributed.run
from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from tqdm import tqdm
from tqdm.std import TqdmDefaultWriteLock

import restart_sampling
from restart_sampling import cli

# tqdm's lock would be one for all copies of a process, and stay locked where the copy that has it is killed; and a copy
# should begin while no thread holds another.
TqdmDefaultWriteLock.mp_lock = None
tqdm.monitor_interval = 0

ENDING = {signal.SIGINT, signal.SIGTERM}
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


def import_all() -> None:
    """Imports the package, so that no copy has to."""
    for module in pkgutil.walk_packages(restart_sampling.__path__, "restart_sampling."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # of an extra that is not there
                import_module(module.name)


class Copy:
    """Runs Python with these arguments in a copy of this process: what is used of `subprocess.Popen`."""

    def __init__(self, args, env, stdout=None, stderr=None, start_new_session=True) -> None:
        self.returncode: int | None = None
        self._files = (stdout, stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        # Python drops what a signal raises at the end of a fork, and with it the release of the lock of its logging.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork of a process with threads: theirs sleep
            self.pid = os.fork()
        if self.pid == 0:
            _run([str(word) for word in args], env, stdout, stderr)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        except BaseException:  # a signal of meanwhile; nobody else knows of the copy
            end_all(self.pid)
            raise

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float = math.inf) -> int:
        until = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > until:
                raise subprocess.TimeoutExpired("a copy", timeout)
            time.sleep(0.005)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Where it hangs, it and all that it started say where they are, and are ended."""
        hung = ""
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            hung = f"no end after {timeout} s"
            every = [self.pid, *started_by(self.pid)]
            for each in every:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGUSR1)
            time.sleep(1)
            end_all(*every)
        out, err = map(_content, self._files)
        assert not hung, f"{hung}: {err}"
        return out, err


def _content(file: IO[str]) -> str:
    with file:
        file.seek(0)
        return file.read()


def started_by(pid: int) -> list[int]:
    """The processes that one has started, and those that they have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for each in found:  # which grows
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def end_all(*pids: int) -> None:
    for each in pids:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def start(*words: object) -> Copy:
    """Python with these arguments, on one core, in a session of its own."""
    files = (tempfile.TemporaryFile("w+", errors="replace") for _ in range(2))  # noqa: SIM115
    return Copy([sys.executable, *words], {**os.environ, "OMP_NUM_THREADS": "1"}, *files)


_SLOW = """
import os, time
from pathlib import Path
from pkgutil import resolve_name
from restart_sampling.cli import main

owner = resolve_name("{owner}")
function = owner.{name}

def slow(*arguments):
    time.sleep({seconds})
    return function(*arguments)

owner.{name} = slow
Path(f"pid-{{os.environ.get('RANK', 0)}}").write_text(str(os.getpid()))
main()
"""


def write_slow(owner: str, name: str, seconds: float) -> None:
    """Writes slow.py: the command line, but each call of a function takes longer, and each process leaves pid-RANK.

    The owner of the function is a module, or `module:class`.
    """
    Path("slow.py").write_text(_SLOW.format(owner=owner, name=name, seconds=seconds))


def wait_for(condition: Callable[[], object], process: Copy, seconds: float = 60) -> None:
    """Until the condition holds, while the process runs."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.001)


def _hear() -> None:
    """Lets signals through, which have waited since before the fork."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _run(args: list[str], env: dict[str, str], stdout, stderr) -> NoReturn:
    """Ends this process, whatever happens: the frames above are another's."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(env)
        _begin_anew(stdout, stderr)
        faulthandler.register(signal.SIGUSR1, 2)
        subprocess_handler.Popen = Copy
        _execute([word for word in args[1:] if word != "-u"])
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(BaseException):
            threading._shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _begin_anew(stdout, stderr) -> None:
    """Without what pytest has changed: the streams, the handlers of logs and the filters of warnings."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in ((1, stdout), (2, stderr)):
        if file is not None:
            os.dup2(file.fileno(), number)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    logging.getLogger().handlers.clear()
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    torch.set_num_threads(1)


def _execute(words: list[str]) -> None:
    match words:
        case ["-m", "restart_sampling", *rest]:
            sys.argv = ["restart_sampling", *rest]
            run, cli._run = cli._run, lambda arguments: _hear() or run(arguments)
            runpy.run_module("restart_sampling", run_name="__main__", alter_sys=True)
        case ["-m", module, *rest]:
            _hear()
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", code, *rest]:
            _hear()
            sys.argv = ["-c", *rest]
            exec(code, {"__name__": "__main__"})
        case [script, *rest]:
            _hear()
            sys.argv = [script, *rest]
            runpy.run_path(script, run_name="__main__")
