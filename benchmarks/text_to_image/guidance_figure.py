"""The paper's guidance figure at the scale of `tiny-text-to-image`: distance and CLIP score of samplers, by guidance.

    python benchmarks/text_to_image/guidance_figure.py CIFAR/test --out out/guidance --minutes 9
    restart-sampling figure out/guidance/results.jsonl --kind text --out out/guidance/guidance.png

Each block draws an image of each of 5,000 captions of the test set with seeds of its own, with every sampler at every
guidance scale: a folder as of `text compare --seed`, which the same command takes up again. results.jsonl and table.md
have the rows of all whole blocks: their mean, and its standard error by the jackknife within each.
"""

# mypy: disable-error-code="no-untyped-call"

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch
from pack import captions_of

from restart_sampling.base.files import atomic
from restart_sampling.base.ranks import Ranks
from restart_sampling.comparison.rows import Row, Watch
from restart_sampling.comparison.text_comparison import TextComparison, text_row
from restart_sampling.evaluation.clip import ClipScore, load_clip
from restart_sampling.evaluation.metrics import paired_difference
from restart_sampling.evaluation.results_file import RESULTS, append_result
from restart_sampling.evaluation.setup import open_setup
from restart_sampling.evaluation.tiny_clip import REFERENCE, TINY_CLIP
from restart_sampling.images.prompts import read_prompts, write_prompts
from restart_sampling.text_to_image.bundled import TINY
from restart_sampling.text_to_image.drawing import Request, prepare
from restart_sampling.text_to_image.pipeline import TextToImage, load_pipeline
from restart_sampling.text_to_image.samplers import Sampler

SAMPLERS = {
    "64 evaluations": ("ddim:64", "ddpm:64", "heun:32", "dpmpp:64", "restart:30"),
    "25 evaluations": ("dpmpp:25", "dpmpp:25 use_karras_sigmas=true", "restart-dpmpp:25"),
}
"""Of about as many evaluations as the paper's restarts have, and as the form around DPM-Solver++(2M) has."""
GUIDANCES = (2.0, 3.0, 5.0, 8.0)
CAPTIONS = 5000
BLOCKS = 3

Result = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Block(TextComparison):
    """A comparison whose images stay in memory.

    Attributes:
        texts: features of the prompts, [N, d].
    """

    texts: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    def measure(self, row: Row, watch: Watch) -> dict[str, Any]:
        """Draws the images of a row, and measures them."""
        assert row.drawing is not None
        begin = time.perf_counter()
        images = torch.cat([batch.images for batch in row.drawing.draw(row.seeds)])
        seconds = time.perf_counter() - begin
        clip = self.scores["clip"].clip
        shown = torch.cat([clip.image_features(part) for part in images.split(self.batch)])
        scores = (shown * self.texts).sum(1).double()
        parts = zip(torch.arange(len(images)).split(self.batch), images.split(self.batch), strict=True)
        return {
            **self.measure_batches(row, ((places.tolist(), part, None) for places, part in parts), watch),
            "clip_score": scores.mean().item(),
            "clip_score_error": (scores.std() / len(scores) ** 0.5).item(),
            "draw_seconds": round(seconds, 3),
        }


def encode_once(model: TextToImage) -> None:
    """Has the pipeline keep the features of its prompts, which all samplers are given."""
    encode, kept = model.pipe.encode_prompt, {}

    @wraps(encode)
    def encode_prompt(prompt: list[str], *others: Any, **named: Any) -> Any:
        key = tuple(prompt)
        if key not in kept:
            kept[key] = encode(prompt, *others, **named)
        return kept[key]

    model.pipe.encode_prompt = encode_prompt


def compile_network(model: TextToImage, batch: int) -> None:
    """Compiles the network once for all samplers, some of which have timesteps of another dtype."""
    warm_up = prepare(model, Request(Sampler.parse("ddim:2"), 2.0), "a photo", batch)  # evaluates one image
    network: Any = model.network
    network.to(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True
    evaluate = network.forward
    compiled = torch.compile(evaluate, dynamic=False)

    @wraps(evaluate)  # pipelines look at its arguments
    def forward(sample: torch.Tensor, timestep: torch.Tensor, *others: Any, **named: Any) -> Any:
        return compiled(sample, timestep.float(), *others, **named)

    network.forward = forward
    list(warm_up.draw(range(batch)))


def pooled(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean of values of blocks, each with its standard error, and the standard error of the mean."""
    return mean(value for value, _ in parts), sum(error**2 for _, error in parts) ** 0.5 / len(parts)


def join(blocks: Sequence[Mapping[str, Result]]) -> list[Result]:
    """The rows that all blocks have, each as one."""
    return [_join([block[name] for block in blocks]) for name in blocks[0] if all(name in block for block in blocks)]


def _join(own: Sequence[Result]) -> Result:
    first = {**own[0], "images": sum(each["images"] for each in own), "blocks": len(own)}
    if len(own) == 1:
        return first
    del first["frechet_distance_without_group"], first["pixels_sha256"], first["samples"]
    first["run"] = {**first["run"], "seed": [each["run"]["seed"] for each in own]}
    for key in ("frechet_distance", "clip_score"):
        value, error = pooled([(each[key], each[f"{key}_error"]) for each in own])
        first |= {key: value, f"{key}_error": error, f"{key}_blocks": [each[key] for each in own]}
    return first


def table(blocks: Sequence[Mapping[str, Result]]) -> str:
    """Markdown: a table for each number of evaluations, with each distance less that of Restart, paired by seeds."""
    joined = {(each["guidance"], each["sampler"]): each for each in join(blocks)}
    lines = []
    for title, samplers in SAMPLERS.items():
        head = "| guidance | sampler | NFE | distance | less Restart's | CLIP score |"
        lines += [f"{title}, {len(blocks)} blocks:", "", head, "|" + "---|" * 6]
        for guidance in GUIDANCES:
            rows = [joined[guidance, sampler] for sampler in samplers if (guidance, sampler) in joined]
            base = next((each for each in rows if each["family"] == "Restart"), None)
            lines += [_line(each, base, blocks) for each in rows]
        lines.append("")
    return "\n".join(lines)


def _line(own: Result, base: Result | None, blocks: Sequence[Mapping[str, Result]]) -> str:
    difference = ""
    if base and base is not own:
        pairs = [paired_difference(block[own["name"]], block[base["name"]]) for block in blocks]
        difference = "{:+.4f} +- {:.4f}".format(*pooled(pairs))
    distance, score = (f"{own[key]:.4f} +- {own[f'{key}_error']:.4f}" for key in ("frechet_distance", "clip_score"))
    return f"| {own['guidance']:g} | {own['sampler']} | {own['nfe']} | {distance} | {difference} | {score} |"


@click.command(help=__doc__)
@click.argument("pictures", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--minutes", type=float, default=9.0, help="no row is begun that would end later")
@click.option("--captions", "count", type=int, default=CAPTIONS)
@click.option("--batch", type=int, default=1000, help="a part of the captions")
@click.option("--device", help="cuda where there is one")
def main(pictures: Path, out: Path, minutes: float, count: int, batch: int, device: str | None) -> None:
    begin = time.monotonic()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if count % batch:
        raise click.UsageError(f"{count} captions are not a whole number of batches of {batch}")
    prompts_path = out / "captions.csv"
    if not prompts_path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_prompts(captions_of(pictures, count), prompts_path)
    prompts = read_prompts(prompts_path)
    model = load_pipeline(TINY, place, torch.float16 if place.type == "cuda" else torch.float32)
    encode_once(model)
    scores = {"clip": ClipScore(load_clip(TINY_CLIP, place))}
    texts = torch.cat([scores["clip"].clip.text_features(prompts[at : at + batch]) for at in range(0, count, batch)])
    setup, ranks = open_setup(str(REFERENCE), TINY_CLIP, "fd", 1, place), Ranks(0, 1, place)
    requests = [Request(Sampler.parse(text), scale) for scale in GUIDANCES for own in SAMPLERS.values() for text in own]
    drawings = [prepare(model, request, prompts, batch) for request in requests]
    if place.type == "cuda":
        compile_network(model, batch)
    print(f"{time.monotonic() - begin:5.0f} s  ready", flush=True)
    whole: list[dict[str, Result]] = []
    pace = 0.0  # seconds of a row for an evaluation
    for number in range(BLOCKS):
        folder, results = out / f"block-{number}", {}
        own = [replace(each, request=replace(each.request, seed=number * count)) for each in drawings]
        rows = [text_row(drawing, prompts_path) for drawing in own]
        block = Block(setup, ranks, batch, folder / RESULTS, folder, prompts, scores, texts=texts)
        with block.claimed(rows) as there:
            for row in rows:
                end = time.monotonic() - begin + pace * row.cost
                if row.name not in there and end > 60 * minutes:
                    print(f"{row.name} of block {number} would end after {end:.0f} s; the same command goes on there")
                    return
                (outcome,) = block.run([row], there)
                if outcome.result is None:
                    print(f"{row.name} of block {number} failed: {outcome.error}", flush=True)
                    continue
                results[row.name] = outcome.result
                pace = max(pace, outcome.result["seconds"] / row.cost)
                print(f"{time.monotonic() - begin:5.0f} s  block {number}  {describe(outcome.result)}", flush=True)
                if not whole:
                    save([results], out)
        whole.append(results)
        save(whole, out)


def describe(result: Result) -> str:
    """A line for the user."""
    return (
        f"{result['name']}: distance {result['frechet_distance']:.4f}, CLIP score {result['clip_score']:.4f}; "
        f"{result['seconds']:.1f} s, of them {result['draw_seconds']:.1f} drawing"
    )


def save(blocks: Sequence[Mapping[str, Result]], out: Path) -> None:
    """Writes the rows of the blocks in place of those that are there, and their table."""
    with atomic(out / RESULTS) as path:
        path.unlink(missing_ok=True)
        for result in join(blocks):
            append_result(path, result)
    (out / "table.md").write_text(table(blocks), "utf-8")


if __name__ == "__main__":
    main()
