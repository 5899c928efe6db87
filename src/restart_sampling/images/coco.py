"""COCO captions and images, selected as in the Restart paper.

The original draws with pandas and numpy's global generator. The same rows come here from numpy alone: the table has one
row a caption, pandas' `sample` is `RandomState.choice` without replacement, and its CSV is that of Python's `csv`.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from restart_sampling.base.errors import InputError
from restart_sampling.base.files import atomic
from restart_sampling.images.sources import Source

SEED = 123


@dataclass(frozen=True)
class CocoCaption:
    """A row of the subset.

    Attributes:
        row: its place in the table of all captions.
        file_name: of its image.
        caption: what a person wrote about the image; COCO's own text, line ends and all.
    """

    row: int
    file_name: str
    caption: str


def draw_captions(annotations: Path, count: int = 5000, *, unique_images: bool = False) -> list[CocoCaption]:
    """Draws the captions of the paper's text-to-image experiment, in the original's order.

    Args:
        annotations: COCO's file of captions; the paper's is captions_val2014.json.
        count: how many.
        unique_images: keep one caption an image, the first after the shuffle; the original leaves this step out, and
            about one in twenty of its 5,000 captions shares its image with another.

    Raises:
        InputError: the file is no such file, or holds too few.
    """
    table = _table(annotations)
    random = np.random.RandomState(SEED)
    rows = random.choice(len(table), len(table), replace=False)
    if unique_images:
        first: dict[str, int] = {}
        for row in rows.tolist():
            first.setdefault(table[row][0], row)
        rows = np.array(list(first.values()))
    if count > len(rows):
        what = "images" if unique_images else "captions"
        raise InputError(f"{annotations} holds {len(rows)} {what}, and {count} are asked for; ask for fewer")
    chosen = rows[random.choice(len(rows), count, replace=False)]
    return [CocoCaption(row, *table[row]) for row in chosen.tolist()]


def write_captions(captions: Sequence[CocoCaption], path: Path) -> None:
    """Writes the original's subset.csv: the columns ``, `file_name` and `caption`. Byte for byte that of pandas."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", "file_name", "caption"])
        writer.writerows([each.row, each.file_name, each.caption] for each in captions)


def caption_images(source: Source, captions: Sequence[CocoCaption]) -> Source:
    """Finds the images of the captions, each one once, as a source for `plan_dataset`.

    Args:
        source: COCO's images, in whatever folders.
        captions: of `draw_captions`.

    Raises:
        InputError: an image is not there; the message names it.
    """
    places = {PurePosixPath(name).name: place for place, name in enumerate(source.names)}
    names = sorted({each.file_name for each in captions})
    missing = [name for name in names if name not in places]
    if missing:
        others = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise InputError(
            f"{source.path} has no {missing[0]}{others}, whose captions were drawn; give the images that the "
            "annotations are of, such as val2014.zip"
        )
    own = [places[name] for name in names]
    return Source(source.path, names, None, lambda index: source.raw(own[index]), source.lossy)


def _table(annotations: Path) -> list[tuple[str, str]]:
    """Reads file name and caption of every caption: images in the file's order, and of each its captions in theirs.

    An image without captions has one row without text, as in pandas' left merge.
    """
    try:
        content: Any = json.loads(annotations.read_bytes())
        captions = defaultdict(list)
        for annotation in content["annotations"]:
            captions[annotation["image_id"]].append(str(annotation["caption"]))
        return [
            (str(image["file_name"]), caption)
            for image in content["images"]
            for caption in captions.get(image["id"], [""])
        ]
    except OSError as error:
        raise InputError(f"{annotations} cannot be read ({error.strerror}); give captions_val2014.json") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{annotations} is not COCO's file of captions (images with file names, annotations with captions); "
            "give captions_val2014.json"
        ) from error
