"""`restart-sampling text compare`: the paper's text-to-image table, a line of a results file for each row."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.base.errors import InputError
from restart_sampling.cli.options import (
    describe_device,
    device_option,
    json_option,
    pick_device,
    print_json,
    print_settings,
)
from restart_sampling.cli.reference import DETECTOR_HELP
from restart_sampling.cli.rows import Finished, distance, measure_missing, print_failures
from restart_sampling.cli.sampler import versions
from restart_sampling.cli.text.drawing import (
    SAMPLER_HELP,
    Asked,
    batch_option,
    describe_model,
    drawing_options,
    images_option,
    pick_samplers,
    prompts_option,
    read_captions,
    seed_option,
)
from restart_sampling.cli.text.scoring import ScoreModels, describe_score, score_options

if TYPE_CHECKING:
    from restart_sampling.comparison.text_rows import TextComparison, TextRow
    from restart_sampling.text_to_image.pipeline import TextToImage
    from restart_sampling.text_to_image.samplers import Sampler

SAMPLERS = ("ddim:50", "ddim:100", "heun:26", "heun:51", "dpmpp:25", "ddpm:100", "ddpm:200", "restart:30")


@click.command()
@prompts_option
@click.option("--reference", "reference_name", required=True, metavar="NPZ", help="Statistics: a file or an https URL.")
@click.option("--detector", "detector_name", default="inception", show_default=True, help=DETECTOR_HELP)
@click.option(
    "--guidance",
    "guidance_text",
    default="2,3,5,8",
    show_default=True,
    metavar="SCALES",
    help="Classifier-free guidance scales, with commas between.",
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
    default="fd,clip,aesthetic",
    show_default=True,
    help="With commas between: fd (always), kid, pr, fd-infinity, clip, aesthetic.",
)
@score_options
@click.option("--keep-images", is_flag=True, help="Keep the images of finished rows, in DIR/images.")
@seed_option
@images_option
@drawing_options
@batch_option
@device_option
@json_option
def compare(
    prompts_path: Path,
    reference_name: str,
    detector_name: str,
    guidance_text: str,
    sampler_texts: tuple[str, ...],
    out: Path,
    metrics_text: str,
    models: ScoreModels,
    keep_images: bool,
    seed: int,
    count: int | None,
    asked: Asked,
    batch: int,
    device: str,
    as_json: bool,
) -> int:
    """Compare samplers on the prompts of a CSV: Fréchet distance, CLIP and aesthetic score at each guidance scale.

    The same command goes on after an interruption, and does what is missing of a longer list; also under torchrun.

    \b
      restart-sampling text coco annotations/captions_val2014.json --out coco --source val2014.zip
      restart-sampling reference coco/subset.zip --out coco.npz
      restart-sampling text compare --prompts coco/subset.csv --reference coco.npz --out table
    """
    chip = pick_device(device)

    from restart_sampling.base.files import check_writable
    from restart_sampling.base.ranks import distributed
    from restart_sampling.comparison.text_rows import TextComparison
    from restart_sampling.evaluation.metrics import GROUPS, METRICS
    from restart_sampling.evaluation.setup import open_setup
    from restart_sampling.text_to_image.samplers import Sampler

    guidances = _scales(guidance_text)
    for text in sampler_texts:
        Sampler.parse(text)  # what can be wrong without the models comes before them
    metrics = models.metrics(metrics_text, more=[metric for metric in METRICS if metric != "per-class"])
    with distributed(chip) as ranks:
        with ranks.one_goes_first():
            prompts = read_captions(prompts_path, count)
            if len(prompts) < 2 * GROUPS:
                raise InputError(
                    f"{prompts_path} gives {len(prompts)} prompts, too few for a distance with its spread; "
                    f"give at least {2 * GROUPS}"
                )
            setup = open_setup(
                reference_name, detector_name, [each for each in METRICS if each in (*metrics, "fd")], 1, ranks.device
            )
            scores = models.load(metrics, ranks.device)
            model = asked.load(ranks.device)
            samplers = pick_samplers(sampler_texts, model, SAMPLERS)
            made = TextComparison(
                out,
                setup,
                scores,
                keep_images,
                describe_device(ranks.device),
                versions("diffusers", "transformers"),
                replace(ranks, forgiving=True),
            )
            rows = _rows(made, model, asked, guidances, samplers, prompts, seed, batch, prompts_path)
            check_writable(made.results)
            finished = made.take_up(rows) if ranks.first else {}
        finished = ranks.gather(finished)[0]
        if ranks.first:
            there = sum(row.key in finished for row in rows)
            evaluations = sum(row.images.drawing.network_evaluations for row in rows)
            print_settings(
                {
                    "model": describe_model(model),
                    "rows": f"{len(rows)}, {evaluations} network evaluations of an image in all"
                    + f"; {there} are there" * (there > 0),
                    "images": f"{len(prompts)} of each row ({prompts_path}, seeds {seed}-{seed + len(prompts) - 1})",
                    "reference": f"{reference_name} ({setup.reference.statistics.count or 'unknown number of'} images)",
                    "detector": f"{detector_name} ({setup.detector.identity[:32]}), float32 without TF32",
                    **{name: describe_score(score.about) for name, score in scores.items()},
                    "device": f"{ranks.size} x {describe_device(ranks.device)}, networks in {model.dtype}",
                    **({"note": setup.note} if setup.note else {}),
                }
            )
        failed = measure_missing(rows, finished, made.measure, len(prompts), ranks.first)
        if ranks.first:
            if as_json:
                print_json({"results": [finished[row.key] for row in rows if row.key in finished]})
            else:
                _print_table(rows, finished)
            _print_end(made, rows, failed)
    return 1 if failed else 0


def _scales(text: str) -> list[float]:
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(map(isfinite, scales)) or len(set(scales)) < len(scales):
        raise InputError(f"--guidance {text}: give different scales with commas between, such as 2,3,5,8")
    return scales


def _rows(
    made: TextComparison,
    model: TextToImage,
    asked: Asked,
    guidances: Sequence[float],
    samplers: Sequence[Sampler],
    prompts: Sequence[str],
    seed: int,
    batch: int,
    prompts_path: Path,
) -> list[TextRow]:
    """Every sampler at every scale. What does not fit the pipeline is refused."""
    from dataclasses import asdict

    from restart_sampling.comparison.published_text import find_published
    from restart_sampling.comparison.text_rows import TextRow
    from restart_sampling.text_to_image.generate import prepare
    from restart_sampling.text_to_image.images import TextImages

    def row(sampler: Sampler, guidance: float) -> TextRow:
        drawing = prepare(model, asked.request(sampler, guidance, seed))
        images = TextImages(drawing, prompts, batch)
        published = find_published(str(sampler), guidance)
        about = {
            "run": images.run,
            "name": f"{sampler} at {guidance:g}",
            "family": sampler.family,
            "sampler": str(sampler),
            "guidance": guidance,
            "model": model.name,
            "plan": None,
            "nfe": drawing.nfe,
            "network_evaluations": drawing.network_evaluations,
            "published": None if published is None else asdict(published),
            "prompts": str(prompts_path),
            **made.setup.about,
            "metrics": [*made.setup.metrics, *made.scores],
            **{name: score.about for name, score in made.scores.items()},
            "device": f"{made.ranks.size} x {made.device}",
            "versions": made.versions,
        }
        return TextRow(images, about)

    return [row(sampler, guidance) for guidance in guidances for sampler in samplers]


def _print_table(rows: Sequence[TextRow], finished: Finished) -> None:
    """On standard output: every row with its figures, and the paper's beside them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    first = rows[0].about
    ours = [metric for metric in ("clip", "aesthetic") if metric in first["metrics"]]
    paper = any(row.about["published"] for row in rows)
    titles = {"clip": "CLIP score", "aesthetic": "aesthetic score"}
    heads = ["guidance", "sampler", "NFE", "network evaluations", "Fréchet distance", *(titles[name] for name in ours)]
    heads += ["paper", "its FID", *(f"its {titles[name]}" for name in ours)] if paper else []
    table = Table(*heads, "seconds", box=None, pad_edge=False)
    for row in rows:
        about, result = row.about, finished.get(row.key)
        cells = [f"{about['guidance']:g}", escape(about["sampler"])]
        cells += [str(about["nfe"]), str(about["network_evaluations"]), distance(result) if result else "failed"]
        cells += [_score(result, name) if result else "" for name in ours]
        if paper:
            printed: dict[str, Any] = about["published"] or {}
            cells += [printed.get("printed", ""), _number(printed.get("fid"), 2)]
            cells += [_number(printed.get(name), 4 if name == "clip" else 2) for name in ours]
        table.add_row(*cells, f"{result['seconds']:.1f}" if result else "")
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def _score(result: dict[str, Any], name: str) -> str:
    return f"{result[f'{name}_score']:.4f} +- {result[f'{name}_score_error']:.2g}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _print_end(made: TextComparison, rows: Sequence[TextRow], failed: dict[str, str]) -> None:
    from restart_sampling.comparison.published_text import NOTES

    if any(row.about["published"] for row in rows):
        click.echo("notes on the paper's figures:", err=True)
        for note in NOTES:
            click.echo(f"  - {note}", err=True)
    print_failures(rows, failed)
    click.echo(f"results: {made.results}", err=True)
