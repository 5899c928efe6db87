"""`Checkpoint`: what a model file holds, and the model that it makes."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any, get_args

import torch
from torch.overrides import TorchFunctionMode

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.numbers import has_truth
from restart_sampling.base.numerics import torchs_own_defaults
from restart_sampling.models.by_name import BUNDLED
from restart_sampling.models.denoiser import NETWORKS, Denoiser, EDMPrecond
from restart_sampling.models.diffusers_unet import DiffusersUNet
from restart_sampling.models.preconditionings import DENOISERS
from restart_sampling.models.resolve import default_plan
from restart_sampling.sampling.pfgmpp import augmented_dimensions

FORMAT = "restart-sampling/1"
"""Of the safetensors of this package, in their metadata."""

# EDM computes the lowest level of VP in float32, which is off by 2.4 %, and its grids end there.
_TOLERANCES = {"sigma_min": 0.05, "sigma_max": 0.05}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a model file holds.

    Attributes:
        path: the file.
        format: one of `read_checkpoint.FORMATS`.
        class_name: of the preconditioning, as the file says it; `build` knows those in `DENOISERS`.
        init_kwargs: EDM's arguments of that class, without those of PFGM++ (pfgmpp, D).
        state: EDM's state dict: contiguous tensors in the dtypes of the file; float32 where that has 8 bits.
        D: dimension of the augmented data of PFGM++; None is Gaussian noise.
        sigma_min, sigma_max: range of noise levels; None where the file does not say.
        classes: names of the classes, or ().
        metadata: other texts, such as `dataset` and `training`; `weights` where these are not simply the average;
            `latents` where the states are no images.
        scalars: numbers that are attributes of the modules, as "model.enc.16x16_block0.skip_scale".
        sha256: of the file; "" for a model that comes from none.
        source_sha256: of the Python source that a pickle carries for the class; None for safetensors.
        known_source: whether the source of every module is EDM's.
        quantized: names of tensors that have 8 bits in the file.
    """

    path: Path
    format: str
    class_name: str
    init_kwargs: dict[str, Any]
    state: dict[str, torch.Tensor] = field(repr=False)
    D: int | None
    sigma_min: float | None
    sigma_max: float | None
    sha256: str
    classes: tuple[str, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    scalars: dict[str, float] = field(default_factory=dict, repr=False)
    source_sha256: str | None = None
    known_source: bool = False
    quantized: frozenset[str] = frozenset()

    def build(self, D: int | None = None, device: str | torch.device = "cpu") -> Denoiser:
        """Builds the model: float32, in eval mode, without gradients. Torch's random generator is left as it was.

        Args:
            D: dimension of the augmented data, for a PFGM++ model whose file does not say it.
            device: where the model is to be.

        Raises:
            InputError: the class, its arguments, the tensors or D do not fit together.

        Warns:
            UserWarning: numbers in the file differ from those of the model that was built.
        """
        if self.class_name not in DENOISERS:
            raise self._error(f"its class is {shorten(self.class_name)}, and can be {', '.join(DENOISERS)}")
        model = self._construct(self._dimensions(D)).eval()
        expected = model.state_dict()
        self._check_state(expected)
        state = {key: tensor.to(device, expected[key].dtype, copy=True) for key, tensor in self.state.items()}
        model.load_state_dict(state, assign=True)
        self._compare_scalars(model)
        for name, tolerance in _TOLERANCES.items():
            stored = self.scalars.get(name, math.nan)
            if math.isclose(stored, getattr(model, name), rel_tol=tolerance):
                setattr(model, name, stored)
        model.identity = self.sha256 or None
        model.default_plan = default_plan(self.path)
        model.latents = self.metadata.get("latents")
        model.weights = self.metadata.get("weights")
        model.classes = self.classes if len({*self.classes}) == model.label_dim else ()
        model.requires_grad_(False).to(device)
        if self.path not in BUNDLED.values():  # those run
            self._try(model)
        return model

    def _error(self, reason: str) -> InputError:
        return unusable(self.path, reason)

    def _dimensions(self, given: int | None) -> int | None:
        """Returns D of the file, or the one that is given for a file that does not say it."""
        if given is not None:
            given = augmented_dimensions(given)
            if self.D not in (None, given):
                raise self._error(f"it was trained with D={self.D}, but D={given} was given; leave D out")
            if self.D is None and "training" in self.metadata:  # by `train`, which keeps D
                raise self._error(f"it was trained without a D, but D={given} was given; leave D out")
        if DENOISERS[self.class_name] is not EDMPrecond:
            if self.D is not None:
                raise self._error(
                    f"it is a PFGM++ model (D={self.D}) with {self.class_name}, and such are read with EDMPrecond only"
                )
            if given is not None:
                raise self._error(f"D={given} was given, but a {self.class_name} model has none; leave D out")
        return self.D if given is None else given

    def _construct(self, D: int | None) -> Denoiser:
        """Makes the model without the numbers of its weights, which nothing draws, as those of the file follow."""
        allowance = _Allowance(4 * sum(tensor.numel() for tensor in self.state.values()) + 10_000)
        try:
            self._check_numbers()
            with torchs_own_defaults(), torch.device("meta"), allowance:
                return DENOISERS[self.class_name](**self.init_kwargs, D=D)
        except Exception as error:  # arguments from a file can make a constructor fail in any way
            raise self._error(f"its init_kwargs do not make a {self.class_name}: {shorten(str(error))}") from error

    def _check_numbers(self) -> None:
        """Refuses true and false where the class or its network takes numbers, as which Python would take them."""
        kind = DENOISERS[self.class_name]
        default = signature(kind).parameters["model_type"].default
        network = NETWORKS.get(self.init_kwargs.get("model_type", default), kind)
        taken = [signature(each).parameters for each in (network, kind, Denoiser)]
        kinds = {name: each[name].annotation for each in taken for name in each}
        for name in kinds.keys() & self.init_kwargs.keys():
            if {int, float} & {kinds[name], *get_args(kinds[name])} and has_truth(self.init_kwargs[name]):
                raise ValueError(f"{name} is {self.init_kwargs[name]}, and true and false are no numbers")

    def _try(self, model: Denoiser) -> None:
        """Calls the model for no image at all: a constructor keeps what only the first call looks at."""
        images = 1 if isinstance(model.model, DiffusersUNet) else 0  # diffusers' networks take no empty batch
        x = torch.zeros(images, *model.shape, device=model.device)
        try:
            model(x, x.new_ones(images))
        except Exception as error:
            raise self._error(f"its init_kwargs make no {self.class_name} that runs: {shorten(str(error))}") from error

    def _check_state(self, expected: Mapping[str, torch.Tensor]) -> None:
        missing, unknown = sorted(expected.keys() - self.state.keys()), sorted(self.state.keys() - expected.keys())
        if missing or unknown:
            raise self._error(
                f"its tensors are not those of its init_kwargs: {len(missing)} are missing and {len(unknown)} unknown, "
                f"such as {shorten((missing or unknown)[0])}"
            )
        for key, tensor in self.state.items():
            if tensor.shape != expected[key].shape or not tensor.is_floating_point():
                found, wanted = (f"{list(t.shape)} of {t.dtype}" for t in (tensor, expected[key]))
                raise self._error(f"its tensor {key} is {shorten(found)}, and has to be {wanted}")

    def _compare_scalars(self, model: Denoiser) -> None:
        modules = dict(model.named_modules())
        differing = []
        for key, stored in self.scalars.items():
            module, _, name = key.rpartition(".")
            built = getattr(modules.get(module), name, None)
            if isinstance(built, int | float) and not math.isclose(
                built, stored, rel_tol=_TOLERANCES.get(name, 1e-6), abs_tol=1e-12
            ):
                differing.append(f"{key} ({stored:g} in the file, {built:g} in the model)")
        if differing:
            more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
            warnings.warn(
                f"{shorten(str(self.path), 150)}: {', '.join(differing[:3])}{more} differ; its images may be wrong",
                stacklevel=3,
            )


class _Allowance(TorchFunctionMode):
    """Ends a constructor that makes more numbers than a file of its size can need.

    The sizes come from the file, and without this a file of 1 kB could ask for all the memory there is.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.left = numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not any(isinstance(each, torch.Tensor) for each in args):
            self.left -= made.numel()
            if self.left < 0:
                raise ValueError("they ask for far more numbers than the file holds")
        return made


def unusable(path: Path, reason: str) -> InputError:
    """Makes the error of a model file, with a reason that ends the sentence."""
    return InputError(f"model file {shorten(str(path), 150)} cannot be used: {reason}")
