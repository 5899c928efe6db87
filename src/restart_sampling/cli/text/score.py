"""`restart-sampling text score`: CLIP and aesthetic scores of images of prompts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from restart_sampling.base.machine import describe_device
from restart_sampling.base.numbers import with_error
from restart_sampling.cli import Command
from restart_sampling.cli.options import (
    ProcessOptions,
    batch_option,
    describe_source,
    json_option,
    print_json,
    print_settings,
    process_options,
)
from restart_sampling.cli.progress import ProgressBar
from restart_sampling.cli.text.score_options import ScoreModels, describe_score, score_options


@click.command(cls=Command)
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--prompts",
    "prompts_path",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What the images were made of: a CSV with a column 'caption'; row 0 is that of 0.png, row 1 of 1.png, unless "
    "a first column without a name (as in the table of 'text generate') or the column 'file_name' numbers them; or a "
    ".txt with a prompt a line.",
)
@click.option(
    "--metrics",
    "metrics_text",
    help="With commas between: clip (how well images fit their prompts), aesthetic (how people would rate them).  "
    "[default: clip for pictures of 32x32, else both]",
)
@score_options
@click.option(
    "--results",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("results.jsonl"),
    show_default=True,
    help="A line is added.",
)
@batch_option
@process_options
@json_option
def score(
    images: Path,
    prompts_path: Path,
    metrics_text: str | None,
    models: ScoreModels,
    results: Path,
    batch: int,
    processes: ProcessOptions,
    as_json: bool,
) -> None:
    """Compute the CLIP and aesthetic scores of IMAGES.

    IMAGES are a folder, zip or tar, made of the prompts in a CSV.

    \b
      restart-sampling text score images --prompts images/subset.csv

    The CLIP score is the mean cosine, not multiplied by 100 and not raised to 0, as in the paper's tables. Images are
    scaled (bicubic) and cropped to what CLIP takes; prompts are cut at its 77 tokens. All is float32 without TF32; the
    original's is float16 in part.
    """
    from restart_sampling.base.files import check_writable, sha256
    from restart_sampling.base.machine import versions
    from restart_sampling.evaluation.results_file import append_result
    from restart_sampling.evaluation.scores import measure_scores
    from restart_sampling.evaluation.tiny_clip import SIDE
    from restart_sampling.images.prompts import match_images, read_numbered_prompts
    from restart_sampling.images.sources import open_source

    with processes.ranks() as ranks:
        with ranks.one_goes_first():
            source = open_source(images)
            tiny = source.image(0).size == (SIDE, SIDE)
            metrics = models.metrics(metrics_text or ("clip" if tiny else "clip,aesthetic"))
            prompted = match_images(source, read_numbered_prompts(prompts_path))
            check_writable(results)
            scores = models.load(metrics, ranks.device, tiny)
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
                    **describe_source(prompted.source),
                    "prompts": prompts_path,
                    **{name: describe_score(loaded.about) for name, loaded in scores.items()},
                    "device": about["device"],
                }
            )
        with ProgressBar("images", len(prompted), ranks.first) as advance:
            values = measure_scores(
                prompted, scores, ranks, batch_size=batch, advance=lambda number: advance(number * ranks.size)
            )
        result = {**about, **values, "time": datetime.now(UTC).isoformat(timespec="seconds")}
        if ranks.first:
            append_result(results, result)
            if not as_json:
                for name, loaded in scores.items():
                    value = with_error(result[f"{name}_score"], result[f"{name}_score_error"])
                    click.echo(f"{name} score  {value}  ({describe_score(loaded.about)})")
            click.echo(f"results: {results.absolute()}", err=True)
            if as_json:
                print_json(result)
