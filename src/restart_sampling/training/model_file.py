"""The trained model as a file that `load_model` and all commands read."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from restart_sampling.models.checkpoint import Checkpoint
from restart_sampling.models.denoiser import Denoiser
from restart_sampling.models.write_checkpoint import write_safetensors
from restart_sampling.training.settings import LABEL_DROPOUT, Settings


def write_model(
    model: Denoiser,
    settings: Settings,
    images: int,
    dataset: str,
    classes: tuple[str, ...],
    out: Path,
    earlier: Sequence[float] = (),
) -> None:
    """Writes a model in float16, but for tensors that are beyond it; the same run writes the same bytes.

    Args:
        model: the average of the weights.
        settings: of the run.
        images: trained on so far.
        dataset: what the data is, in words.
        classes: names of the classes, or ().
        out: a .safetensors file; is replaced.
        earlier: lengths of the run before it was extended.
    """
    length = f"of {settings.images} images" if settings.images is not None else f"of {settings.minutes:g} min"
    training = [
        f"{settings.parametrization} loss",
        f"{images} images in a run {length}" + "".join(f", extended from {each:g}" for each in reversed(earlier)),
        f"batch {settings.batch}",
        f"Adam {settings.lr:g} with warm-up and cosine decay",
        *([f"label dropout {LABEL_DROPOUT:g}"] if settings.label_dim else []),
        f"EMA half-life {settings.ema_images} images",
        f"{settings.dtype} compute",
        f"seed {settings.seed}",
    ]
    state = {name: _halved(tensor.cpu()).contiguous() for name, tensor in model.state_dict().items()}
    checkpoint = Checkpoint(
        path=out,
        format="safetensors",
        class_name=settings.class_name,
        init_kwargs=settings.init_kwargs(),
        state=state,
        D=settings.D,
        sigma_min=None,
        sigma_max=None,
        sha256="",
        classes=classes,
        metadata={"dataset": dataset, "training": ", ".join(training)},
    )
    write_safetensors(checkpoint, out, overwrite=True)


def _halved(tensor: Tensor) -> Tensor:
    half = tensor.half()
    return half if half.isfinite().all() else tensor
