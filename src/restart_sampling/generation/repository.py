"""A model as a repository of the Hugging Face hub: its file, its plan, its licence, samples and a card."""

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import atomic_folder
from restart_sampling.base.lock import alone, lock_beside, remove_lock
from restart_sampling.generation.net_drawing import NetDrawing
from restart_sampling.generation.seeds import format_seeds
from restart_sampling.images.writers import encode_png, image_grid
from restart_sampling.models.checkpoint import Checkpoint
from restart_sampling.models.hub import MODEL, PLAN
from restart_sampling.models.read_checkpoint import FORMATS
from restart_sampling.models.write_checkpoint import write_safetensors

COLUMNS = 10
SAMPLES = "samples.png"

_LICENSE = "LICENSE"
_CARD = """\
---
{metadata}
---

# {name}

{what}, for restart-sampling.

![Samples]({samples})

*{caption}*

## Use

    pip install 'restart-sampling[hub]'
    restart-sampling generate --model hf://{repository} --seeds 0-63 --out images

```python
import restart_sampling as rs

net = rs.load_model("hf://{repository}")
for batch in rs.generate(net, seeds=range(64)):
    batch.images  # uint8 [B, {channels}, {resolution}, {resolution}]
```

Where no plan is given, the one in `{file}` is taken: `{plan}`, with {evaluations} evaluations of the network an image.

## Facts

| | |
|---|---|
{facts}
"""


@dataclass(frozen=True)
class Licence:
    """What others may do with a model.

    Args:
        given: an identifier of the hub, such as apache-2.0, or the path of a text.

    Raises:
        InputError: it is neither.
    """

    given: str

    def __post_init__(self) -> None:
        if not self.is_file and not re.fullmatch(r"[a-z0-9]+([.-][a-z0-9]+)*", self.given):
            raise InputError(
                f"--license {self.given}: it is no file, and no identifier of the hub, such as apache-2.0, mit or "
                "cc-by-nc-sa-4.0"
            )

    @property
    def is_file(self) -> bool:
        """Whether it is the path of a text."""
        return Path(self.given).is_file()

    @property
    def metadata(self) -> dict[str, str]:
        """Its lines in the metadata of a card."""
        if self.is_file:
            name = re.sub(r"[^a-z0-9.]+", "-", Path(self.given).stem.lower())
            return {"license": "other", "license_name": name, "license_link": _LICENSE}
        return {"license": self.given}


def write_repository(
    checkpoint: Checkpoint, drawing: NetDrawing, seeds: Sequence[int], licence: Licence, out: Path, repository: str
) -> None:
    """Writes the folder of a repository, whole or not at all.

    A file of this package is copied as it is: its SHA-256, by which runs know their model, stays the same. A file of
    another format is converted.

    Args:
        checkpoint: the model.
        drawing: of its samples, with the plan that suits it.
        seeds: of the samples.
        licence: of the model.
        out: a folder that does not exist, or is empty.
        repository: owner/name, for the card.

    Raises:
        InputError: the folder exists, or an image is not finite.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        remove_lock(lock_beside(out))
        raise InputError(f"{out} exists; give the name of a new folder")
    images = torch.cat([batch.images for batch in drawing.draw(seeds)]).numpy()
    with alone(out), atomic_folder(out) as folder:
        if checkpoint.format == FORMATS[0]:
            shutil.copyfile(checkpoint.path, folder / MODEL)
        else:
            write_safetensors(checkpoint, folder / MODEL)
        if licence.is_file:
            shutil.copyfile(licence.given, folder / _LICENSE)
        (folder / PLAN).write_text(f"{drawing.plan}\n", "utf-8")
        (folder / SAMPLES).write_bytes(encode_png(image_grid(images, COLUMNS)))
        (folder / "README.md").write_text(_card(checkpoint, drawing, seeds, licence, repository), "utf-8")


def _card(checkpoint: Checkpoint, drawing: NetDrawing, seeds: Sequence[int], licence: Licence, repository: str) -> str:
    """Writes a card, with the metadata that the hub reads."""
    channels, resolution, _ = drawing.shape
    labels = getattr(drawing.net, "label_dim", 0)
    metadata = {
        **licence.metadata,
        "library_name": "restart-sampling",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["restart-sampling", "diffusion", *(["pfgmpp"] if drawing.net.D is not None else [])],
    }
    parameters = sum(tensor.numel() for tensor in checkpoint.state.values())
    facts = {
        "Network": f"{checkpoint.class_name}, {parameters / 1e6:.1f} million parameters",
        "Classes": ", ".join(checkpoint.classes) or (str(labels) if labels else "none"),
        "D of PFGM++": drawing.net.D,
        **{name.capitalize().replace("_", " "): text for name, text in checkpoint.metadata.items()},
        "Converted from": None if checkpoint.format == FORMATS[0] else checkpoint.format,
        "SHA-256 of the original" if checkpoint.format != FORMATS[0] else "SHA-256": checkpoint.sha256,
    }
    columns = f"; column k is class k, of {labels}" if labels else ""
    run = range(seeds[0], seeds[0] + len(seeds))
    named = format_seeds(run if tuple(seeds) == tuple(run) else seeds)
    return _CARD.format(
        metadata="\n".join(f"{key}: {json.dumps(value)}" for key, value in metadata.items()),  # JSON is YAML, too
        name=repository.rpartition("/")[2],
        what=f"{'Class-conditional' if labels else 'Unconditional'} diffusion model of {resolution}x{resolution} "
        f"{'RGB' if channels == 3 else 'grey'} images",
        samples=SAMPLES,
        caption=f"Seeds {named}, with the plan `{drawing.plan}`{columns}.",
        repository=repository,
        channels=channels,
        resolution=resolution,
        file=PLAN,
        plan=drawing.plan,
        evaluations=drawing.network_evaluations,
        facts="\n".join(f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None),
    )


def _cell(value: object) -> str:
    """Writes a value into a table of Markdown: text of a file stays text."""
    return re.sub(r"([|<\[\]`])", r"\\\1", shorten(str(value), 1000))
