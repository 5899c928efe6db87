"""Which pipelines of diffusers run with the schedulers: its own tiny test pipelines, built offline, with restarts.

    git clone --depth 1 https://github.com/huggingface/diffusers
    pip install accelerate peft ftfy sentencepiece protobuf parameterized  # which its tests import
    python benchmarks/pipelines.py diffusers/tests --results pipelines.jsonl
    python benchmarks/pipelines.py pipelines.jsonl  # the tables of docs/pipelines.md

A pipeline is run with its own scheduler, with ours without restarts beside diffusers' Euler, and twice with a restart.
It runs right where our pictures without restarts are Euler's, the scheduler was called at each of its timesteps in
order and to the end, and two runs with equal generators are equal.
"""

import importlib
import inspect
import io
import json
import logging
import multiprocessing
import os
import re
import resource
import sys
import time
import traceback
import types
import unittest
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import wraps
from itertools import groupby
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any
from unittest import mock

import click

MADE_FOR = 6
"""Steps of a run; enough for a restart of two."""
FLOWS = ("SkyReelsV2", "SanaVideo", "WanVideoToVideo", "Cosmos2_5", "Cosmos3")
"""Pipelines of flow models whose tests have a solver of other models, without flow sigmas."""


def stub_hub() -> None:
    """Tiny random text networks and a tokenizer of letters in place of those that the tests load from the hub."""
    import torch
    import transformers

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tiny_clip import letters  # type: ignore[import-not-found]

    vocabulary = letters()

    class Letters(transformers.CLIPTokenizer):
        """Also in place of a processor of text and images, and of one that pads each prompt to its longest."""

        def __call__(self, *texts: Any, images: Any = None, videos: Any = None, **settings: Any) -> Any:
            return super().__call__(*texts, **settings)

    def tokenizer(*_: Any, **__: Any) -> Any:
        made = Letters(vocab=vocabulary, merges=[], model_max_length=77)
        made.pad_token = "<|endoftext|>"
        return made

    small: dict[str, Any] = {
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "hidden_size": 32,
        "intermediate_size": 37,
    }

    def text(class_: Any, **settings: Any) -> Any:
        def make(*_: Any, **__: Any) -> Any:
            torch.manual_seed(0)
            return class_(class_.config_class(**settings)).eval()

        return make

    t5: dict[str, Any] = {"vocab_size": 32128, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 1, "num_heads": 4}
    for name, settings in (
        ("T5EncoderModel", t5),
        ("T5ForConditionalGeneration", t5),
        ("UMT5EncoderModel", t5),
        ("CLIPTextModel", {**small, "vocab_size": 49408, "bos_token_id": 0, "eos_token_id": 2}),
        ("BertModel", {**small, "vocab_size": 1124}),
    ):
        class_ = getattr(transformers, name)
        class_.from_pretrained = staticmethod(text(class_, **settings))
    gemma = transformers.Gemma3ForConditionalGeneration
    gemma.from_pretrained = staticmethod(text(gemma, text_config={**small, "head_dim": 8, "num_key_value_heads": 4}))  # type: ignore[method-assign]
    transformers.AutoConfig.from_pretrained = staticmethod(lambda *_, **__: transformers.T5Config(**t5))  # type: ignore[method-assign]
    base = transformers.PreTrainedTokenizerBase
    # Templates of chats: the words alone, and long enough for what pipelines cut off.
    base.get_chat_template = lambda *_, **__: "{{ messages[0]['content'] }}" + " a" * 80  # type: ignore[method-assign]
    for name in (
        "AutoProcessor",
        "AutoTokenizer",
        "BertTokenizer",
        "CLIPTokenizer",
        "LlamaTokenizer",
        "Qwen2Tokenizer",
        "T5Tokenizer",
        "T5TokenizerFast",
    ):
        if hasattr(transformers, name):
            getattr(transformers, name).from_pretrained = staticmethod(tokenizer)


def stub_packages() -> None:
    """What the tests import and do not need."""
    from diffusers.models.transformers import transformer_cosmos
    from torch.nn.functional import interpolate

    resize = types.SimpleNamespace(resize=lambda x, size, **_: interpolate(x, size))
    transformer_cosmos.transforms = types.SimpleNamespace(functional=resize, InterpolationMode=mock.MagicMock())
    for name in ("parameterized", "requests_mock"):
        try:
            importlib.import_module(name)
        except ImportError:
            sys.modules[name] = mock.MagicMock()


def cases(tests: Path, module: str) -> list[Any]:
    """The test classes of a module that know a tiny pipeline."""
    sys.path.insert(0, str(tests.parent))
    loaded = importlib.import_module(module)
    found = [
        each
        for each in vars(loaded).values()
        if inspect.isclass(each)
        and each.__module__ == module
        and hasattr(each, "pipeline_class")
        and hasattr(each, "get_dummy_components")
        and "scheduler" in inspect.signature(each.pipeline_class.__init__).parameters
    ]
    return list({each.pipeline_class: each for each in reversed(found)}.values())


def prepare() -> None:
    """What all modules share, before the processes part."""
    warnings.filterwarnings("ignore")
    os.environ["HF_HUB_OFFLINE"] = "1"
    stub_hub()
    stub_packages()
    import diffusers
    import torch

    for name in dir(diffusers):  # each is imported when it is first asked for: once here instead of in each process
        if name.endswith("Pipeline"):
            with suppress(Exception):
                getattr(diffusers, name)
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    logging.disable(logging.WARNING)
    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)


def judge_module(tests: Path, module: str, skip: int, answers: Connection) -> None:
    """Sends what becomes of the pipelines of a test module, each with its place; before each, its name."""
    import torch

    torch.set_grad_enabled(False)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        try:
            found = cases(tests, module)
        except BaseException as error:  # whatever a test module imports
            answers.send({"pipeline": module, "state": "not built", "why": short(error)})
            return
        for each in found[skip:]:
            about = {"pipeline": each.pipeline_class.__name__, "test": f"{module}.{each.__name__}"}
            answers.send(about)
            answers.send(about | judge(each))
    if not found:
        answers.send({"pipeline": module, "state": "none", "why": "no class of it tests a pipeline with a scheduler"})


def judged(tests: Path, modules: list[str], processes: int, seconds: float) -> Iterator[dict[str, Any]]:
    """Yields what becomes of the pipelines of test modules, each module in a process of its own.

    A process that dies, or is at one pipeline for too long, is ended, and another goes on with the next pipeline.
    """
    fork = multiprocessing.get_context("fork")
    waiting = [(module, 0) for module in reversed(modules)]
    running: list[Running] = []
    while waiting or running:
        while waiting and len(running) < processes:
            module, skip = waiting.pop()
            answers, sending = fork.Pipe(duplex=False)
            process = fork.Process(target=judge_module, args=(tests, module, skip, sending))
            process.start()
            sending.close()
            running.append(Running(module, process, answers, skip, time.monotonic() + seconds))
        ready = wait([each.answers for each in running], timeout=1)
        for each in list(running):
            why = f"it took more than {seconds:g} seconds" if time.monotonic() > each.deadline else ""
            if each.answers in ready:
                try:
                    answer = each.answers.recv()
                    each.deadline = time.monotonic() + seconds
                    each.at = None if "state" in answer else answer
                    if each.at is None:
                        each.done += 1
                        yield answer
                    continue
                except EOFError:
                    each.process.join()
                    why = f"its process ended with exit code {each.process.exitcode}" if each.process.exitcode else ""
                    if not why:
                        running.remove(each)
                        continue
            if why:
                each.process.kill()
                running.remove(each)
                yield (each.at or {"pipeline": each.module}) | {"state": "not built", "why": why}
                if each.at:
                    waiting.append((each.module, each.done + 1))


@dataclass
class Running:
    """A test module that is at work.

    Attributes:
        module: its name.
        process: of its own.
        answers: where it sends.
        done: pipelines that are finished.
        deadline: when the one that it is at has taken too long.
        at: the pipeline that it is at; None while it is imported.
    """

    module: str
    process: Any
    answers: Connection
    done: int
    deadline: float
    at: dict[str, Any] | None = None


def short(error: BaseException) -> str:
    """An error and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {str(error).strip()[:300]} ({Path(frame.filename).name}:{frame.lineno})".replace(
        "\n", " "
    )


def build(case: Any) -> Any:
    pipe = case.pipeline_class(**case.get_dummy_components())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def give(pipe: Any, scheduler: Any) -> None:
    """Sets the scheduler, also of the inner pipeline that draws in Kandinsky's and VisualCloze's combinations."""
    for each in (pipe, getattr(pipe, "decoder_pipe", pipe), getattr(pipe, "generation_pipe", pipe)):
        each.scheduler = scheduler


def run(case: Any, pipe: Any) -> Any:
    import torch

    torch.manual_seed(0)
    takes = inspect.signature(case.get_dummy_inputs).parameters
    inputs = case.get_dummy_inputs(*(["cpu"] if "device" in takes else []))
    parameters = inspect.signature(type(pipe).__call__).parameters
    if "num_inference_steps" in parameters:
        inputs["num_inference_steps"] = getattr(case, "our_steps", MADE_FOR)
    for key in ("timesteps", "sigmas"):
        inputs.pop(key, None)
    result = pipe(**inputs)
    result = result[0] if isinstance(result, tuple) else next(iter(result.values()))
    while isinstance(result, (list, tuple)):
        result = result[0]
    return torch.as_tensor(__import__("numpy").asarray(result)).double()


def judge(case_class: Any) -> dict[str, Any]:
    """What becomes of a pipeline."""
    import diffusers
    import torch

    from restart_sampling.base.errors import InputError
    from restart_sampling.text_to_image import FlowMatchRestartScheduler, RestartScheduler
    from restart_sampling.text_to_image.configs import kind_of

    case = case_class("get_dummy_inputs") if issubclass(case_class, unittest.TestCase) else case_class()
    try:
        if hasattr(case, "setUp"):
            case.setUp()
        pipe = build(case)
        run(case, pipe)
    except BaseException as error:
        return {"state": "not built", "why": short(error)}
    own = type(pipe.scheduler).__name__
    result: dict[str, Any] = {"scheduler": own}
    try:
        config = {**pipe.scheduler.config, "_class_name": own}
        if case_class.pipeline_class.__name__.startswith(FLOWS):
            config |= {"use_flow_sigmas": True, "use_karras_sigmas": False, "prediction_type": "flow_prediction"}
        flow = kind_of(config) == "flow"
        if flow:
            config = {"shift": config.get("flow_shift", 1.0), **config}  # by the name that diffusers' Euler has for it
        class_ = FlowMatchRestartScheduler if flow else RestartScheduler
        euler = diffusers.FlowMatchEulerDiscreteScheduler if flow else diffusers.EulerDiscreteScheduler

        def schedule(pipe: Any, restart: Any) -> None:
            give(pipe, class_.from_config(config, restart=restart))

        plain = build(case)
        schedule(plain, None)
        ours = run(case, plain)
        replaced = type(plain.scheduler) is not class_
        first = float(plain.scheduler.sigmas[plain.scheduler.begin_index or 0])
        theirs = None
        if flow or own in (euler.__name__, "DDIMScheduler", "PNDMScheduler", "DDPMScheduler"):
            other = build(case)
            give(other, euler.from_config(config))
            try:
                theirs = run(case, other)
            except Exception:
                theirs = None
        if len(plain.scheduler.sigmas) - (plain.scheduler.begin_index or 0) < 5 and not hasattr(case, "our_steps"):
            case_class.our_steps = 5 * MADE_FOR  # a low strength leaves no room for a restart
            return judge(case_class)
        levels = [level for level in plain.scheduler.sigmas.tolist()[(plain.scheduler.begin_index or 0) :] if level > 0]
        low = levels[min(3, len(levels) - 2)]
        high = (levels[0] + low) / 2 if flow else (levels[0] * low) ** 0.5
        runs, step = [], class_.step
        calls: dict[Any, list[float]] = {}  # by scheduler: some pipelines step each frame, or sound, by a copy

        def counted(scheduler: Any, *given: Any, **named: Any) -> Any:
            result = step(scheduler, *given, **named)
            calls.setdefault(scheduler, []).append(scheduler.timesteps[scheduler.step_index - 1].item())
            return result

        for _ in range(2):
            pipe = build(case)
            schedule(pipe, [[2, 1, low, high]])
            pipe.scheduler.register_to_config(restart_budget="extra")
            calls.clear()
            with mock.patch.object(class_, "step", wraps(step)(counted)):
                runs.append(run(case, pipe))
        scheduler = pipe.scheduler
        expected = scheduler.timesteps.tolist()[(scheduler.begin_index or 0) :]
        said = []
        if not torch.isfinite(ours).all():
            return result | {"state": "not built", "why": "its tiny networks give no finite picture"}
        if replaced or type(scheduler) is not class_:
            return result | {
                "state": "replaced",
                "why": f"the pipeline replaces it by {type(plain.scheduler).__name__}",
            }
        if theirs is not None and ours.shape == theirs.shape and not torch.allclose(ours, theirs, atol=1e-2, rtol=1e-2):
            said.append(f"without restarts {(ours - theirs).abs().max():.3g} from Euler's")
        if not scheduler.path.rises:
            said.append("no restart in the path")
        if scheduler.step_index not in (None, len(scheduler.timesteps)):  # none: set anew for a next part (WanAnimate)
            said.append(f"stopped at row {scheduler.step_index} of {len(scheduler.timesteps)}")
        if not torch.equal(runs[0], runs[1]):
            said.append("two runs with equal generators differ")
        if not torch.isfinite(runs[0]).all() and torch.isfinite(ours).all():
            said.append("not finite")
        whole = [time for time, _ in groupby(expected)]
        distinct = [[time for time, _ in groupby(seen)] for seen in calls.values()]
        said += [f"steps at {each} and not {whole}" for each in distinct if each != whole]
        return result | ({"state": "wrong", "why": "; ".join(said)} if said else {"state": "runs", "first": first})
    except InputError as error:
        return result | {"state": "refused", "why": str(error)}
    except BaseException as error:
        try:
            other = build(case)
            give(other, euler.from_config(config))
            run(case, other)
        except BaseException as same:
            if short(same) == short(error):
                return result | {
                    "state": "not Euler's",
                    "why": f"it fails with diffusers' Euler likewise: {short(error)}",
                }
        return result | {"state": "error", "why": short(error), "trace": traceback.format_exc()[-1500:]}


NEEDS = (
    (r"Can't load (.*?) for '(.*?)'|(?:OSError: )([\w.-]+/[\w.-]+) does not appear", "needs files of the hub"),
    (r"couldn't connect to 'https://huggingface.co'", "needs files of the hub"),
    (r"'transforms' is not defined|MultiModalProcessor", "needs torchvision"),
    (r"cannot reshape tensor of 0 elements|image_token_id", "needs the tokenizer of its own language model"),
    (r"took more than", "needs more than the time that a pipeline may take"),
    (r"invert. an? |need to invert", "needs an image that was inverted first"),
    (r"for SCM", "needs two steps, and its scheduler is for distilled networks"),
    (r"Deprecated Pipeline", "is no longer tested by diffusers"),
    (r"missing 1 required positional argument", "needs an argument that its tests vary"),
    (r"No module named '(\w+)'", "needs a Python package"),
)
"""What a pipeline that could not be built needs, by what its test said."""


def needs(why: str) -> str:
    """What a pipeline needs that could not be built; what its test said, if that is not known."""
    return next((said for pattern, said in NEEDS if re.search(pattern, why)), why)


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: what runs, what is refused and why, and what the others need to be built."""
    rows: dict[tuple[str, str], set[str]] = {}
    for each in results:
        why = each.get("why", "") if each["state"] != "runs" else ""
        said = re.sub(r" \(\w+\.py:\d+\)$", "", re.sub(r"a sample of std [0-9.e+]+", "a sample of a std", why))
        if each["state"] == "not built":
            said = needs(said)
        if each["state"] not in ("none", "no pipeline"):
            name = each["pipeline"].removesuffix("Wrapper").removesuffix("Pipeline")
            rows.setdefault((each["state"], said), set()).add(name)
    order = ["runs", "not Euler's", "refused", "replaced", "wrong", "error", "not built"]
    lines = ["| pipelines | | |", "|---|---|---|"]
    for (state, why), names in sorted(rows.items(), key=lambda row: (order.index(row[0][0]), row[0])):
        lines.append(f"| {', '.join(sorted(names))} | {state} ({len(names)}) | {why} |")
    return "\n".join(lines)


def module_of(result: dict[str, Any]) -> str:
    """The test module of a result; one that could not be imported stands for its pipelines."""
    return str(result.get("test", f"{result['pipeline']}.")).rpartition(".")[0]


@click.command()
@click.argument("tests", type=click.Path(exists=True, path_type=Path))
@click.option("--only", default="", help="Test modules whose names have one of these words, between commas.")
@click.option("--processes", default=2, show_default=True)
@click.option("--seconds", default=120.0, show_default=True, help="That a pipeline may take.")
@click.option(
    "--results",
    default=None,
    type=click.Path(path_type=Path),
    help="Lines of JSON, one for each pipeline; those of test modules that are not run stay.",
)
def main(tests: Path, only: str, processes: int, seconds: float, results: Path | None) -> None:
    tests = tests.resolve()
    if tests.is_file():  # results of a run before
        print(table([json.loads(line) for line in tests.read_text("utf-8").splitlines()]))
        return
    files = sorted((tests / "pipelines").rglob("test_*.py"))
    modules = [".".join(file.relative_to(tests.parent).with_suffix("").parts) for file in files]
    chosen = [each for each in modules if any(word in each for word in only.split(","))]
    prepare()
    kept = results.read_text("utf-8").splitlines() if results and results.exists() else []
    lines = [line for line in kept if module_of(json.loads(line)) not in chosen]
    for each in judged(tests, chosen, processes, seconds):
        lines.append(json.dumps(each))
        if results:
            results.write_text("".join(f"{line}\n" for line in sorted(lines)), "utf-8")
        said = f"{each.get('scheduler', ''):32s} {each['state']:12s} {each.get('why', '')[:200]}"
        print(f"{each['pipeline']:50s} {said}", flush=True)


if __name__ == "__main__":
    main()
