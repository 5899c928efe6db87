"""Writes a caption of each picture of a set, in random order, as prompts for `text tune` and `text compare`.

python benchmarks/text_to_image/prompts.py cifar10-train.tar.xz captions.csv
"""

# mypy: disable-error-code="no-untyped-call"

import random
from pathlib import Path

import click
import torch
from captions import write
from training_data import read_pictures

from restart_sampling.images.prompts import write_prompts


@click.command(help=__doc__)
@click.argument("pictures", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def main(pictures: Path, out: Path) -> None:
    draw, found = random.Random(4), read_pictures(pictures, torch.device("cpu"))
    captions = [write(attributes, draw).text for attributes in found.attributes.tolist()]
    draw.shuffle(captions)
    write_prompts(captions, out)


if __name__ == "__main__":
    main()
