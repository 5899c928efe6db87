"""`restart-sampling text`: text-to-image models, and what their images are compared with."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from restart_sampling.cli.options import (
    Progress,
    batch_option,
    describe_device,
    device_option,
    json_option,
    pick_device,
    print_json,
    print_settings,
)
from restart_sampling.errors import InputError

if TYPE_CHECKING:
    import torch

    from restart_sampling.evaluation.aesthetic import AestheticScore
    from restart_sampling.evaluation.clip import ClipScore

RESOLUTION = 512


@click.group()
def text() -> None:
    """Captions to draw images of, and scores of the images."""


@text.command()
@click.argument("annotations", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Where to write."
)
@click.option(
    "--images", "count", default=5000, show_default=True, type=click.IntRange(1), help="How many captions to draw."
)
@click.option(
    "--unique-images",
    is_flag=True,
    help="One caption an image; without it some captions share an image, as in the paper.",
)
@click.option(
    "--source",
    "source_path",
    metavar="COCO",
    type=click.Path(path_type=Path),
    help="COCO's images, such as val2014.zip or its folder: also write those of the captions, for 'reference'.",
)
@click.option(
    "--resolution",
    type=click.IntRange(1),
    metavar="N",
    help=f"With --source: the square in the middle of each image is scaled to NxN; default: {RESOLUTION}.",
)
@json_option
def coco(
    annotations: Path,
    out: Path,
    count: int,
    unique_images: bool,
    source_path: Path | None,
    resolution: int | None,
    as_json: bool,
) -> None:
    """Draw the captions that the paper's text-to-image experiment is made of, from COCO's captions_val2014.json.

    \b
      restart-sampling text coco annotations/captions_val2014.json --out coco --source val2014.zip
      restart-sampling reference coco/subset.zip --out coco.npz

    DIR/subset.csv is the original's, byte for byte. DIR/subset.zip has each image of the captions once: the largest
    square in its middle, scaled with Lanczos. DIR/subset.json says how both were made.
    """
    if resolution is not None and source_path is None:
        raise InputError("--resolution is for the images, and --source, where they are, is missing")

    from restart_sampling.files import check_writable, sha256, write_json
    from restart_sampling.images.coco import SEED, caption_images, draw_captions, write_captions
    from restart_sampling.images.dataset import make_dataset, plan_dataset
    from restart_sampling.images.parallel import available_cores
    from restart_sampling.images.sources import open_source
    from restart_sampling.images.transforms import Transform

    table, archive = out / "subset.csv", out / "subset.zip"
    if table.exists():
        raise InputError(f"{table} exists; remove it, or choose another place")
    captions = draw_captions(annotations, count, unique_images=unique_images)
    about: dict[str, Any] = {
        "annotations": str(annotations),
        "annotations_sha256": sha256(annotations),
        "captions": len(captions),
        "images": len({each.file_name for each in captions}),
        "unique_images": unique_images,
        "seed": SEED,
        "transform": None,
    }
    plan = None
    if source_path is not None:
        side = resolution or RESOLUTION
        chosen = Transform("center-crop", (side, side))
        plan = plan_dataset(caption_images(open_source(source_path), captions), archive, chosen)
        about["transform"] = f"center-crop, Lanczos to {side}x{side}"
    check_writable(table)
    print_settings(
        {
            "captions": f"{about['captions']} of {about['images']} images, drawn with seed {SEED} from {annotations}",
            "images": f"{about['transform']}, from {source_path}" if plan else "not written: no --source",
            "out": out,
        }
    )
    if plan:
        with Progress("images", plan.count) as advance:
            make_dataset(plan, available_cores(), advance)
    write_json(out / "subset.json", about)
    write_captions(captions, table)
    click.echo(f"written: {table}{f', {archive}' if plan else ''}", err=True)
    if as_json:
        print_json({**about, "out": str(out)})


@text.command()
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--prompts",
    "prompts_path",
    required=True,
    metavar="CSV",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What the images were made of: a CSV with a column 'caption'; row 0 is that of 0.png, row 1 of 1.png.",
)
@click.option(
    "--metrics",
    "metrics_text",
    default="clip,aesthetic",
    show_default=True,
    help="With commas between: clip (how well images fit their prompts), aesthetic (how people would rate them).",
)
@click.option(
    "--clip",
    "clip_name",
    metavar="MODEL",
    help="For clip: a CLIP on the Hugging Face hub or its folder; default: the paper's ViT-g/14, "
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K.",
)
@click.option(
    "--head",
    metavar="NAME",
    help="For aesthetic: one of LAION's six heads; default: the paper's, sac+logos+ava1-l14-linearMSE.",
)
@click.option(
    "--head-clip", metavar="MODEL", help="For aesthetic: the folder with the CLIP of the head; default: from the hub."
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("results.jsonl"),
    show_default=True,
    help="A line is added.",
)
@batch_option
@device_option
@json_option
def score(
    images: Path,
    prompts_path: Path,
    metrics_text: str,
    clip_name: str | None,
    head: str | None,
    head_clip: str | None,
    results: Path,
    batch: int,
    device: str,
    as_json: bool,
) -> None:
    """CLIP and aesthetic scores of IMAGES (a folder, zip or tar), which were made of the prompts in a CSV.

    \b
      restart-sampling text score images --prompts images/subset.csv

    The CLIP score is the mean cosine, not multiplied by 100 and not raised to 0, as in the paper's tables. Images are
    scaled (bicubic) and cropped to what CLIP takes; prompts are cut at its 77 tokens. All is float32 without TF32; the
    original's is float16 in part.
    """
    chip = pick_device(device)

    from restart_sampling.cli.sampler import versions
    from restart_sampling.evaluation.results import append_result
    from restart_sampling.experiments.text_scores import measure_scores
    from restart_sampling.files import check_writable, sha256
    from restart_sampling.generation.distributed import distributed
    from restart_sampling.images.prompts import match_images, read_prompts
    from restart_sampling.images.sources import open_source

    metrics = _metrics(metrics_text, {"--clip": clip_name}, {"--head": head, "--head-clip": head_clip})
    with distributed(chip) as ranks:
        with ranks.one_goes_first():
            prompted = match_images(open_source(images), read_prompts(prompts_path))
            check_writable(results)
            scores = _load_scores(metrics, clip_name, head, head_clip, ranks.device)
        about = {
            "run": {"images": str(images), "prompts_sha256": sha256(prompts_path)},
            "model": None,
            "plan": None,
            "nfe": None,
            "prompts": str(prompts_path),
            "metrics": list(metrics),
            **{name: loaded.about for name, loaded in scores.items()},
            "device": f"{ranks.size} x {describe_device(ranks.device)}",
            "arithmetic": "float32 without TF32",
            "versions": versions(),
        }
        if ranks.first:
            print_settings(
                {
                    "images": f"{len(prompted)} from {images}",
                    "prompts": prompts_path,
                    **{name: _describe(loaded.about) for name, loaded in scores.items()},
                    "device": about["device"],
                }
            )
        with Progress("images", len(prompted), ranks.first) as advance:
            figures = measure_scores(
                prompted, scores, ranks, batch_size=batch, advance=lambda number: advance(number * ranks.size)
            )
        result = {**about, **figures, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        if ranks.first:
            append_result(results, result)
            if not as_json:
                for name, loaded in scores.items():
                    error = result[f"{name}_score_error"]
                    spread = "" if error is None else f" +- {error:.2g}"
                    click.echo(f"{name} score  {result[f'{name}_score']:.4f}{spread}  ({_describe(loaded.about)})")
            click.echo(f"results: {results}", err=True)
            if as_json:
                print_json(result)


def _metrics(text: str, *options: dict[str, str | None]) -> tuple[str, ...]:
    """The metrics in the text; `options` has what was given for each of all metrics."""
    from restart_sampling.experiments.text_scores import METRICS

    metrics = tuple(metric.strip() for metric in text.split(","))
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise InputError(f"--metrics {text}: there is no '{unknown[0]}'; allowed: {', '.join(METRICS)}")
    for metric, given in zip(METRICS, options, strict=True):
        useless = [name for name, value in given.items() if value is not None and metric not in metrics]
        if useless:
            raise InputError(f"{useless[0]} is for the metric {metric}, which --metrics {text} leaves out")
    return metrics


def _load_scores(
    metrics: tuple[str, ...], clip_name: str | None, head: str | None, head_clip: str | None, device: torch.device
) -> dict[str, ClipScore | AestheticScore]:
    from restart_sampling.evaluation.aesthetic import DEFAULT_HEAD, find_head, load_aesthetic
    from restart_sampling.evaluation.clip import DEFAULT_CLIP, ClipScore, load_clip

    head = head or DEFAULT_HEAD
    published = find_head(head)
    load = cache(lambda name: load_clip(name, device))  # both scores may be of one model
    scores: dict[str, ClipScore | AestheticScore] = {}
    for metric in metrics:
        if metric == "clip":
            scores[metric] = ClipScore(load(clip_name or DEFAULT_CLIP))
        else:
            scores[metric] = load_aesthetic(head, load(head_clip or published.clip))
    return scores


def _describe(about: dict[str, Any]) -> str:
    """What a score is made with, for the user."""
    scale = f", scale {about['scale']} (mean cosine)" if "scale" in about else ""
    head = f"{about['head']} on " if "head" in about else ""
    return f"{head}{about['model']}{scale}"
