"""`restart-sampling text compare`: the paper's text-to-image table, a line of a results file for each row."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.base.numbers import counted, with_error
from restart_sampling.cli import Command
from restart_sampling.cli.dry_run import dry_run_option, estimate_rows, print_estimate
from restart_sampling.cli.options import (
    DETECTOR_HELP,
    ProcessOptions,
    json_option,
    print_json,
    print_settings,
    process_options,
    read_list,
    trust_option,
)
from restart_sampling.cli.row_options import (
    describe_rows,
    describe_setup,
    looked_up,
    metric_columns,
    per_result,
    print_end,
    print_notes,
    print_rows,
    watching,
)
from restart_sampling.cli.text.pipeline_options import (
    SAMPLER_HELP,
    PipelineOptions,
    describe_model,
    describe_notes,
    drawing_options,
    images_option,
    measure_with,
    pick_samplers,
    prompts_option,
    read_captions,
    seed_option,
)
from restart_sampling.cli.text.score_options import ScoreModels, describe_score, score_options
from restart_sampling.text_to_image.bundled import TINY

if TYPE_CHECKING:
    from restart_sampling.comparison.rows import Outcome

SCALES = "2,3,5,8"
SAMPLERS = ("ddim:50", "ddim:100", "heun:26", "heun:51", "dpmpp:25", "ddpm:100", "ddpm:200", "restart:30")


@click.command(cls=Command)
@prompts_option
@click.option(
    "--reference",
    "reference_name",
    metavar="NPZ",
    help=f"Statistics: a file or an https URL; default: CIFAR-10's, for {TINY} alone.",
)
@click.option(
    "--detector",
    "detector_name",
    help=f"{DETECTOR_HELP}  [default: tiny-clip with the default reference, else inception]",
)
@trust_option
@click.option(
    "--guidance",
    "guidance_text",
    metavar="SCALES",
    help=f"Classifier-free guidance scales, with commas between.  [default: the sampler's own, or {SCALES}]",
)
@click.option(
    "--sampler",
    "sampler_texts",
    multiple=True,
    metavar="SAMPLER",
    help=f"May be repeated; {SAMPLER_HELP}  [default: the paper's and DPM-Solver++, {', '.join(SAMPLERS)}]",
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="A folder.")
@click.option(
    "--metrics",
    "metrics_text",
    help="With commas between: fd (always), kid, pr, fd-infinity, clip, aesthetic.  "
    f"[default: fd,clip for {TINY}, else fd,clip,aesthetic]",
)
@score_options
@click.option("--keep-images", is_flag=True, help="Keep the images of finished rows, in DIR/images.")
@seed_option
@images_option
@drawing_options
@process_options
@dry_run_option
@json_option
def compare(
    prompts_path: Path | None,
    reference_name: str | None,
    detector_name: str | None,
    trust: bool | str,
    guidance_text: str | None,
    sampler_texts: tuple[str, ...],
    out: Path,
    metrics_text: str | None,
    models: ScoreModels,
    keep_images: bool,
    seed: int,
    count: int | None,
    asked: PipelineOptions,
    processes: ProcessOptions,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Compare samplers at each guidance scale.

    By Fréchet distance, CLIP and aesthetic score, on the prompts of a CSV. The same command goes on after an
    interruption, and does what is missing of a longer list; also under torchrun.

    \b
      restart-sampling text compare --out table
      restart-sampling text coco annotations/captions_val2014.json --out coco --source val2014.zip
      restart-sampling reference coco/subset.zip --out coco.npz
      restart-sampling text compare --model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
          --prompts coco/subset.csv --reference coco.npz --out table
    """
    prompts_path = asked.captions(prompts_path)
    reference_name, detector_name = measure_with(asked, reference_name, detector_name)
    metrics_text = metrics_text or ("fd,clip" if asked.tiny else "fd,clip,aesthetic")

    from restart_sampling.comparison.published_text import NOTES
    from restart_sampling.comparison.text_comparison import TextComparison, text_row
    from restart_sampling.evaluation.metrics import GROUPS, METRICS
    from restart_sampling.evaluation.results_file import RESULTS
    from restart_sampling.evaluation.setup import open_setup
    from restart_sampling.text_to_image.drawing import prepare
    from restart_sampling.text_to_image.samplers import Sampler

    guidances = None if guidance_text is None else _scales(guidance_text)
    for text in sampler_texts:
        Sampler.parse(text)  # what can be wrong without the models comes before them
    metrics = models.metrics(metrics_text, more=[metric for metric in METRICS if metric != "per-class"])
    with processes.ranks() as ranks, ExitStack() as held:
        with ranks.one_goes_first():
            prompts = read_captions(prompts_path, count)
            if len(prompts) < 2 * GROUPS:
                raise InputError(
                    f"{prompts_path} gives {counted(len(prompts), 'prompt')}, too few for a distance with its spread; "
                    f"give at least {2 * GROUPS}"
                )
            own = [each for each in METRICS if each in (*metrics, "fd")]
            setup = open_setup(reference_name, detector_name, own, 1, ranks.device, trust_detector=trust)
            scores = models.load(metrics, ranks.device, asked.tiny)
            model = asked.load(ranks.device)
            picked = pick_samplers(sampler_texts, model, SAMPLERS, guidances, usual := _scales(SCALES))
            scales = list(dict.fromkeys([*(guidances or usual), *(scale for _, scale in picked)]))
            picked.sort(key=lambda row: scales.index(row[1]))  # one scale after the other
            drawings = [prepare(model, asked.request(*row, seed), prompts, asked.batch) for row in picked]
            said = describe_notes(drawings)
            rows = [text_row(drawing, prompts_path) for drawing in drawings]
            comparison = TextComparison(
                setup, ranks, drawings[0].batch, out / RESULTS, out, prompts, scores, keep_images
            )
            there = held.enter_context(looked_up(comparison, rows, out, dry_run)) if ranks.first else {}
        if ranks.first:
            evaluations = sum(drawing.network_evaluations for drawing in drawings)
            print_settings(
                {
                    "model": describe_model(model),
                    **said,
                    "rows": describe_rows(rows, f"{evaluations} network evaluations of an image", there),
                    "images": f"{len(prompts)} of each row ({prompts_path}, seeds {seed}-{seed + len(prompts) - 1})",
                    **{name: describe_score(score.about) for name, score in scores.items()},
                    **describe_setup(comparison, f", networks in {model.dtype}"),
                }
            )
            print_notes({row.name: comparison.notes(row) for row in rows})
        if dry_run:
            print_estimate(out, estimate_rows(rows, there, comparison), as_json, shown=ranks.first)
            return 0
        with watching(rows, there, ranks.first) as watch:
            outcomes = comparison.run(rows, there, watch)
        if ranks.first:
            if as_json:
                print_json({"results": [each.result for each in outcomes if each.result]})
            else:
                _print_table(outcomes, list(scores))
            notes = ["notes on the paper's values:", *(f"  - {note}" for note in NOTES)]
            print_end(comparison, outcomes, notes if any(row.about["published"] for row in rows) else [])
    return 0 if all(each.result for each in outcomes) else 1


def _scales(text: str) -> list[float]:
    scales = read_list(float, text)
    if not scales or not all(map(isfinite, scales)) or len(set(scales)) < len(scales):
        raise InputError(f"--guidance {text}: give different scales with commas between, such as 2,3,5,8")
    return scales


def _print_table(outcomes: Sequence[Outcome], scores: Sequence[str]) -> None:
    """Prints every row with its values, and the paper's beside them."""
    from restart_sampling.evaluation.results_file import SCORES

    abouts = [each.row.about for each in outcomes]
    columns = {
        "guidance": [f"{about['guidance']:g}" for about in abouts],
        "NFE": [str(about["nfe"]) for about in abouts],
        "network evaluations": [str(about["network_evaluations"]) for about in abouts],
        **metric_columns(outcomes),
        **{SCORES[name]: per_result(outcomes, partial(_score, name)) for name in scores},
    }
    printed = [about["published"] or {} for about in abouts]
    if any(printed):
        columns["paper"] = [each.get("printed", "") for each in printed]
        columns["its FID"] = [_number(each.get("fid"), 2) for each in printed]
        columns |= {
            f"its {SCORES[name]}": [_number(each.get(name), 4 if name == "clip" else 2) for each in printed]
            for name in scores
        }
    columns["seconds"] = per_result(outcomes, lambda result: f"{result['seconds']:.1f}")
    samplers = [about["sampler"] for about in abouts]
    print_rows(samplers, samplers, columns)


def _score(name: str, result: dict[str, Any]) -> str:
    return with_error(result[f"{name}_score"], result[f"{name}_score_error"])


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
