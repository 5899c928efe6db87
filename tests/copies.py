"""Commands in copies of this process, which has imported what they need: a start takes milliseconds, not seconds.

torchrun is torch's own, and starts its processes as such copies, too. A signal that comes before a command's own code
has begun waits until then: before, Python itself, which looks for the module, answers Ctrl-C with a traceback, in a
real start too.
"""

import faulthandler
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
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import torch.distributed.run  # noqa: F401
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


def import_all() -> None:
    """Imports the package, so that no copy has to."""
    for module in pkgutil.walk_packages(restart_sampling.__path__, "restart_sampling."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # of an extra that is not there
                import_module(module.name)


class Copy:
    """Runs `python -m MODULE ARGUMENTS...` in a copy of this process: what is used of `subprocess.Popen`."""

    def __init__(self, args, env, stdout=None, stderr=None, start_new_session=True) -> None:
        self.returncode: int | None = None
        self._stderr = stderr
        sys.stdout.flush()
        sys.stderr.flush()
        # Python drops what a signal raises at the end of a fork, and with it the release of the lock of its logging.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
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
        self._stderr.seek(0)
        said = self._stderr.read()
        assert not hung, f"{hung}: {said}"
        return "", said


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
    stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
    return Copy([sys.executable, *words], {**os.environ, "OMP_NUM_THREADS": "1"}, subprocess.DEVNULL, stderr)


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
        empty = os.open(os.devnull, os.O_RDWR)
        for number, file in enumerate((subprocess.DEVNULL, stdout, stderr)):
            if file is not None:
                os.dup2(empty if file == subprocess.DEVNULL else file.fileno(), number)
        faulthandler.register(signal.SIGUSR1, 2)
        subprocess_handler.Popen = Copy
        _, module, *rest = args[args.index("-m") :]
        sys.argv = [module, *rest]
        if module == "restart_sampling":
            run, cli._run = cli._run, lambda arguments: _hear() or run(arguments)
        else:
            _hear()
        runpy.run_module(module, run_name="__main__", alter_sys=True)
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
