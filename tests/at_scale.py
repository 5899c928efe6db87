"""Kills, crowds and fuzzing for a large machine: as much as the given cores and minutes allow.

    python tests/at_scale.py --cores 36 --minutes 22 --out DIR

Every command that writes is ended at 20 moments by each of three signals, on one and on two processes; 100 pairs of
equal and of different runs meet on one output; and the readers of files are fuzzed, each with up to a million inputs.
What becomes of a job is a line of DIR/jobs.jsonl as soon as it is known. DIR/summary.json and DIR/summary.md count
them, and inputs that broke a reader are beside them: of a run that was cut off too, by --summary.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.extend(str(Path(__file__).parent / each) for each in ("", "cli"))

import kills
import torch

import copies
import fuzz

MOMENTS, PART = 20, 10  # of a command, ranks and signal; and of one job
PAIRS = 100
INPUTS = 1_000_000
SLICE = 30.0  # seconds of fuzzing at a time
LEAST = 5  # slices of each reader, before those that are the nearest to their end get more
GUIDED = 40  # seconds of a reader with atheris
SILENCE = 90.0  # seconds after which a fuzzed reader hangs where no alarm of Python's ends it


@dataclass
class Job:
    """Something to do in a process of its own.

    Attributes:
        kind: "kill", "crowd", "fuzz" or "guided".
        about: JSON, which of them.
        run: does it in a folder, and yields JSON of what it saw.
        cores: that it keeps busy.
    """

    kind: str
    about: dict
    run: Callable[[Path], Iterator[dict]]
    cores: int = 1


def write(path: Path, line: dict) -> None:
    with path.open("ab") as file:  # one write, so that many processes may
        file.write(json.dumps(line).encode() + b"\n")


def ended(name: str, ranks: int, number: signal.Signals, part: int, times: int, files: Path) -> Iterator[dict]:
    _link(files)
    case = kills.Case(name, ranks)
    for moment in case.ended(number, times, part):
        yield {**vars(moment), "fault": moment.fault and moment.fault[-20_000:]}


def met(out: str, other: str, part: int, times: int, files: Path) -> Iterator[dict]:
    _link(files)
    crowd, chance = kills.Crowd(out, other), random.Random(f"{out} {other} {part}")
    for _ in range(times):
        try:
            yield {"codes": crowd.meet(chance.choice((0, 0, 0.02, 0.2, 1))), "fault": None}
        except AssertionError as error:
            yield {"codes": None, "fault": str(error)[-4000:]}


def _link(files: Path) -> None:
    for file in files.iterdir():
        Path(file.name).symlink_to(file)


def fuzzed(name: str, reader: fuzz.Reader, seed: int, inputs: int, until: float, out: Path) -> Iterator[dict]:
    fuzz.forbid_code()
    outcome = fuzz.fuzz(name, reader, Path("in"), inputs=inputs, seed=seed, until=min(until, time.monotonic() + SLICE))
    faults = [{"input": fuzz.keep(name, content, out).name, "reason": why[-2000:]} for content, why in outcome.faults]
    yield {"inputs": outcome.inputs, "seconds": round(outcome.seconds, 1), "faults": faults}


def guided(name: str, seconds: int, out: Path) -> Iterator[dict]:
    words = [sys.executable, "-W", "ignore", fuzz.__file__, name, "--atheris", f"-max_total_time={seconds}"]
    words += ["-print_final_stats=1", "-timeout=60", "-rss_limit_mb=8192", f"-artifact_prefix={out / name}-"]
    process = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=seconds + 240)
    counts = [line.split()[-1] for line in process.stderr.splitlines() if "number_of_executed_units" in line]
    fault = {"input": "", "reason": process.stderr[-4000:]}
    yield {
        "inputs": int(counts[0]) if counts else 0,
        "seconds": seconds,
        "faults": [fault] if process.returncode else [],
    }


class Plan:
    """What is to be done, in its order, and how far the fuzzing is."""

    def __init__(self, asked: argparse.Namespace, place: Path, until: float) -> None:
        self.until, self.out = until, asked.out
        self.readers = {
            name: reader for name, reader in fuzz.readers(place).items() if not asked.readers or name in asked.readers
        }
        self.asked = asked
        self.spent, self.inputs, self.slices = Counter[str](), Counter[str](), Counter[str]()
        self.running: Counter[str] = Counter()
        self.files = place / "files"
        self.files.mkdir()
        kills.make_files(self.files)
        self.without: list[str] = []
        try:
            kills.make_pipeline(self.files)
        except Exception as error:  # an extra is missing, or of another version
            self.without = [*kills.WITH_DIFFUSERS]
            write(self.out / "jobs.jsonl", {"kind": "note", "note": f"no text-to-image: {error!r}"[:500]})
        copies.import_all()
        for name in {*self.readers} - fuzz.WITH_THREADS:  # so that no slice has to import, and fill caches
            for content in self.readers[name].sound:
                fuzz.check(self.readers[name], content, place / "in" / name)
        self.first = [*self._crowds(), *self._kills(), *self._guided()]

    def next(self, busy: Counter, free: int) -> Job | None:
        """The next job that fits; a third of the cores are for fuzzing while there is anything to fuzz."""
        own = max(1, self.asked.cores // 3) if self.asked.inputs and self.asked.cores > 1 else 0
        for job in self.first:
            if job.cores <= free and (busy["first"] + job.cores <= self.asked.cores - own):
                self.first.remove(job)
                return job
        name = self._reader() if free else None
        if name is None:
            return None
        seed, self.slices[name] = self.slices[name], self.slices[name] + 1
        left = self._left(name)

        def run(folder: Path) -> Iterator[dict]:
            return fuzzed(name, self.readers[name], seed, left, self.until, self.out)

        return Job("fuzz", {"reader": name, "seed": seed}, run)

    def _reader(self) -> str | None:
        """That to fuzz next: the slow ones in turn too, then the one that needs the least time, so that most end."""
        left = {name: self._left(name) for name in self.readers}
        few = [name for name in self.readers if self.slices[name] < LEAST and left[name] > 0]
        seconds = {
            name: count * self.spent[name] / self.inputs[name]
            for name, count in left.items()
            if count > 0 and self.inputs[name]
        }
        return min(few, key=self.slices.__getitem__, default=None) or min(
            seconds, key=seconds.__getitem__, default=None
        )

    def _left(self, name: str) -> int:
        """Inputs that are to come, less those that are on their way."""
        each = SLICE * self.inputs[name] / self.spent[name] if self.spent[name] else 0
        return self.asked_of(name) - self.inputs[name] - int(each * self.running[name])

    def asked_of(self, name: str) -> int:
        return self.asked.inputs // fuzz.SHARE.get(name, 1)

    def is_done(self) -> bool:
        return not self.first and all(self.inputs[name] >= self.asked_of(name) for name in self.readers)

    def _kills(self) -> list[Job]:
        jobs = []
        for part in range(-(-self.asked.moments // PART)):
            for name in kills.COMMANDS:
                for ranks in (1, 2) if name in kills.RANKED else (1,):
                    for number in kills.SIGNALS:
                        if name in self.without or (self.asked.commands and name not in self.asked.commands):
                            continue
                        about = {"command": name, "ranks": ranks, "signal": number.name, "part": part}
                        words = (name, ranks, number, part, min(PART, self.asked.moments), self.files)
                        jobs.append(Job("kill", about, lambda _, words=words: ended(*words), ranks))
        return sorted(jobs, key=lambda job: -job.cores)  # those that take the longest

    def _crowds(self) -> list[Job]:
        jobs = []
        for part in range(-(-self.asked.pairs // (2 * PART))):
            for out in ("out", "out.zip"):
                for what, other in (("equal", kills.SLOW), ("different", "20")):
                    words = (out, other, part, min(PART, self.asked.pairs), self.files)
                    about = {"crowd": what, "out": out, "part": part}
                    jobs.append(Job("crowd", about, lambda _, words=words: met(*words), 2))
        return jobs

    def _guided(self) -> list[Job]:
        try:
            import atheris  # noqa: F401
        except ImportError:
            return []
        seconds = self.asked.guided
        return [
            Job("guided", {"reader": name}, lambda _, name=name: guided(name, seconds, self.out))
            for name in self.readers
            if seconds
        ]


def child(job: Job, folder: Path, lines: Path) -> None:
    """Does a job and writes its lines."""
    os.chdir(folder)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which is for who began it all, and is no fault of a job
    try:
        for line in job.run(folder):
            write(lines, {"kind": job.kind, **job.about, **line})
    except BaseException:
        write(lines, {"kind": job.kind, **job.about, "fault": f"the job ended: {traceback.format_exc()[-3000:]}"})
        copies.end_all(*copies.started_by(os.getpid()))


def work(asked: argparse.Namespace, place: Path) -> None:
    started = time.monotonic()
    until = started + 60 * asked.minutes
    lines = asked.out / "jobs.jsonl"
    plan = Plan(asked, place, until)
    fork = multiprocessing.get_context("fork")
    going: dict = {}
    busy: Counter[str] = Counter()
    number, told, seen = 0, 0.0, [0]
    while time.monotonic() < until or going:
        while time.monotonic() < until - 5:
            free = asked.cores - sum(job.cores for _, job, _, _ in going.values())
            job = plan.next(busy, free)
            if job is None:
                break
            number += 1
            folder = place / f"job-{number}"
            folder.mkdir()
            process = fork.Process(target=child, args=(job, folder, lines))
            process.start()
            going[number] = process, job, folder, time.monotonic()
            busy["first"] += job.cores * (job.kind != "fuzz")
            plan.running[job.about.get("reader", "")] += job.kind == "fuzz"
        for each, (process, job, folder, since) in [*going.items()]:
            now = time.monotonic()
            late = now > until + 20 or (job.kind == "fuzz" and now > since + SLICE + SILENCE)
            if process.is_alive() and not late:
                continue
            if process.is_alive():
                copies.end_all(*copies.started_by(process.pid), process.pid)
                if now < until:
                    hung(job, folder, lines, asked.out, f"no answer for {SILENCE:.0f} s")
            elif process.exitcode:
                hung(job, folder, lines, asked.out, f"the process ended with {process.exitcode}")
            process.join()
            del going[each]
            busy["first"] -= job.cores * (job.kind != "fuzz")
            if job.kind == "fuzz":
                name = job.about["reader"]
                plan.running[name] -= 1
                plan.spent[name] += time.monotonic() - since
                for line in news(lines, seen):
                    plan.inputs[line["reader"]] += line["inputs"]
            shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > told + 30:
            told = time.monotonic()
            total = summarize(asked.out)
            whole = sum(plan.inputs[name] >= plan.asked_of(name) for name in plan.readers)
            words = f"{number} jobs begun, {len(plan.first)} wait; {whole} of {len(plan.readers)} readers are done; "
            print(f"{told - started:.0f} s: {words}{json.dumps(total)}", flush=True)
        if not going and plan.is_done():
            break
        time.sleep(0.05)


def news(lines: Path, seen: list[int]) -> Iterator[dict]:
    """The lines of fuzzing since the last time; `seen` has the bytes before them."""
    with lines.open("rb") as file:
        file.seek(seen[0])
        for text in file:
            if not text.endswith(b"\n"):
                return
            seen[0] += len(text)
            line = json.loads(text)
            if line["kind"] == "fuzz" and "inputs" in line:
                yield line


def hung(job: Job, folder: Path, lines: Path, out: Path, what: str) -> None:
    """Keeps the input that a reader was at when its process was lost."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    newest = max(files, key=lambda path: path.stat().st_mtime, default=None)
    kept = fuzz.keep(job.about.get("reader", job.kind), newest.read_bytes(), out).name if newest else ""
    fault = {"input": kept, "reason": what}
    line = {"inputs": 0, "seconds": 0, "faults": [fault]} if job.kind == "fuzz" else {"fault": what}
    write(lines, {"kind": job.kind, **job.about, **line})


def read(lines: Path, *kinds: str) -> list[dict]:
    found = [json.loads(line) for line in lines.read_bytes().splitlines()] if lines.exists() else []
    return [line for line in found if line["kind"] in kinds]


def summarize(out: Path) -> dict:
    """Counts the lines, and returns the totals."""
    lines = out / "jobs.jsonl"
    killed: dict = defaultdict(Counter)
    faults = []
    for line in read(lines, "kill", "crowd"):
        key = f"{line['command']} x{line['ranks']} {line['signal']}" if line["kind"] == "kill" else ""
        key = key or f"crowd {line['crowd']} {line['out']}"
        killed[key]["runs"] += "seconds" in line or "codes" in line
        killed[key]["ended"] += bool(line.get("ended"))
        killed[key]["half-written"] += bool(line.get("writing"))
        killed[key]["faults"] += line["fault"] is not None
        if line["fault"] is not None:
            faults.append(line)
    read_: dict = defaultdict(Counter)
    for line in read(lines, "fuzz", "guided"):
        key = line["reader"] + " guided" * (line["kind"] == "guided")
        read_[key]["inputs"] += line.get("inputs", 0)
        read_[key]["seconds"] += round(line.get("seconds", 0))
        read_[key]["faults"] += len(line.get("faults", ["fault"]))
        faults += [{"reader": key, **each} for each in line.get("faults", [{"reason": line.get("fault")}])]
    notes = [line["note"] for line in read(lines, "note")]
    total = {
        "kills": {"runs": 0, **sum((each for key, each in killed.items() if "crowd" not in key), Counter())},
        "pairs": {"runs": 0, **sum((each for key, each in killed.items() if "crowd" in key), Counter())},
        "inputs": sum(each["inputs"] for each in read_.values()),
        "faults": len(faults),
    }
    content = {"total": total, "runs": killed, "readers": read_, "notes": notes, "faults": faults}
    (out / "summary.json").write_text(json.dumps(content, indent=1))
    rows = [f"{key}: {json.dumps(total[key])}" for key in total]
    for title, table in (("Runs", killed), ("Readers", read_)):
        rows += ["", f"## {title}", ""]
        rows += [f"- {key}: {', '.join(f'{k} {v:,}' for k, v in each.items())}" for key, each in sorted(table.items())]
    rows += ["", f"## Faults ({len(faults)})", "", *(f"- {json.dumps(each)[:1200]}" for each in faults), *notes]
    (out / "summary.md").write_text("\n".join(rows) + "\n")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--moments", type=int, default=MOMENTS, help="of each command, ranks and signal")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of equal runs, and of different ones")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="of each reader; of those that draw, a share")
    parser.add_argument("--guided", type=int, default=GUIDED, help="seconds of each reader with atheris")
    parser.add_argument("--commands", nargs="*", help="of kills.COMMANDS; default: all")
    parser.add_argument("--readers", nargs="*", help="of fuzz.readers; default: all")
    parser.add_argument("--summary", action="store_true", help="only count what DIR/jobs.jsonl has")
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    try:
        if not asked.summary:
            shm = Path("/dev/shm")
            with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None, ignore_cleanup_errors=True) as place:
                work(asked, Path(place))
    except KeyboardInterrupt:
        copies.end_all(*copies.started_by(os.getpid()))
        print("cut off")
    summarize(asked.out)
    print((asked.out / "summary.md").read_text())


if __name__ == "__main__":
    main()
