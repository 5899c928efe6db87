"""Models from files: safetensors of our own, EDM's pickles, PFGM++'s training states, and others'."""

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from torch.overrides import TorchFunctionMode

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import sha256, stand_in
from restart_sampling.base.machine import usable_device
from restart_sampling.base.numerics import torchs_own_defaults
from restart_sampling.base.pickles import UnreadableError
from restart_sampling.models.by_name import BUNDLED
from restart_sampling.models.denoiser import Denoiser, EDMPrecond
from restart_sampling.models.diffusers_unet import DiffusersUNet
from restart_sampling.models.edm_network import NetworkRecord, bare_state, network_in
from restart_sampling.models.edm_pickle import PICKLE_MAGIC, ZIP_MAGIC, Record, unpickled
from restart_sampling.models.foreign import adm, diffusers_folder, edm2, score_sde
from restart_sampling.models.foreign.find import find, find_pickled
from restart_sampling.models.foreign.found import Found
from restart_sampling.models.int8 import dequantized
from restart_sampling.models.preconditionings import DENOISERS
from restart_sampling.models.resolve import default_plan, resolve
from restart_sampling.sampling.noise import MAX_DIMENSIONS, augmented_dimensions

FORMAT = "restart-sampling/1"
KNOWN_SOURCES = ("5db27dcd96674b95",)  # sha256 of EDM's training/networks.py, its first 16 digits

FORMATS = (
    "safetensors",
    "edm-pickle",
    edm2.FORMAT,
    "training-state",
    adm.GUIDED,
    adm.IMPROVED,
    score_sde.FORMAT,
    diffusers_folder.FORMAT,
)
"""Of the files that load: of this package, EDM, EDM2, PFGM++ (and EDM), and the projects of these names."""

_RESERVED = {"format", "class_name", "init_kwargs", "D", "sigma_min", "sigma_max", "classes"}
_MAX_INTEGER = 2**20  # above every size of a network
_MAX_ITEMS = 1000
_MAX_DEPTH = 8
_MAX_HEADER = 100_000_000  # bytes, as the library of safetensors has it
# EDM computes the lowest level of VP in float32, which is off by 2.4 %, and its grids end there.
_TOLERANCES = {"sigma_min": 0.05, "sigma_max": 0.05}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a model file holds.

    Attributes:
        path: the file.
        format: one of `FORMATS`.
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

    def build(self, D: int | None = None, device: str | torch.device = "cpu") -> Denoiser:
        """The model: float32, in eval mode, without gradients. The state of torch's random generator is left as it was.

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
        D = None if D is None else augmented_dimensions(D)
        if None not in (D, self.D) and D != self.D:
            raise self._error(f"it was trained with D={self.D}, but D={D} was given; leave D out")
        if D is not None and self.D is None and "training" in self.metadata:  # by `train`, which keeps D
            raise self._error(f"it was trained without a D, but D={D} was given; leave D out")
        if self.D is not None and DENOISERS[self.class_name] is not EDMPrecond:
            raise self._error(
                f"it is a PFGM++ model (D={self.D}) with {self.class_name}, and such are read with EDMPrecond only"
            )
        D = self.D if D is None else D
        if D is not None and DENOISERS[self.class_name] is not EDMPrecond:
            raise self._error(f"D={D} was given, but a {self.class_name} model has none; leave D out")

        model = self._construct(D).eval()
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
        return _error(self.path, reason)

    def _construct(self, D: int | None) -> Denoiser:
        """The model without the numbers of its weights, which nothing draws, as those of the file follow."""
        allowance = _Allowance(4 * sum(tensor.numel() for tensor in self.state.values()) + 10_000)
        try:
            with torchs_own_defaults(), torch.device("meta"), allowance:
                return DENOISERS[self.class_name](**self.init_kwargs, D=D)
        except Exception as error:  # arguments from a file can make a constructor fail in any way
            raise self._error(f"its init_kwargs do not make a {self.class_name}: {shorten(str(error))}") from error

    def _try(self, model: Denoiser) -> None:
        """Calls the model for no image at all: a constructor keeps what only the first call looks at."""
        images = 1 if isinstance(model.model, DiffusersUNet) else 0  # diffusers' networks take no empty batch
        x = torch.zeros(images, model.channels, model.resolution, model.resolution, device=model.device)
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


def load_model(source: str | os.PathLike[str], *, D: int | None = None, device: str | torch.device = "cpu") -> Denoiser:
    """A model: float32, in eval mode, without gradients.

    Args:
        source: a bundled or published name ("cifar10-small", "edm-cifar10-32x32-uncond-vp"), an https:// URL, or the
            path of a file or folder of one of `FORMATS`. Nothing in it is run.
        D: dimension of the augmented data, for a PFGM++ model whose file does not say it.
        device: where the model is to be.

    Raises:
        InputError: the source is unknown, cannot be read or downloaded, or is no model of a known kind, or there is no
            such device.
    """
    device = usable_device(device)
    return read_checkpoint(resolve(source)).build(D, device)


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a model file, or a folder. The first bytes of a file say what it is, whatever its name. Nothing is run.

    Raises:
        InputError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _of_foreign(path, *diffusers_folder.read(path))
        with path.open("rb") as file:
            head = file.read(9)
        size = path.stat().st_size
        if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
            return _read_safetensors(path)
        if head.startswith((PICKLE_MAGIC, ZIP_MAGIC)):
            return _read_pickled(path, "training-state" if head.startswith(ZIP_MAGIC) else "edm-pickle")
        if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER:
            raise UnreadableError("it is a safetensors file that was cut off; download or copy it again")
        instead = stand_in(path)
        raise UnreadableError(
            "it is neither a safetensors file, nor an EDM pickle, nor a PFGM++ training state"
            + f", but {instead}" * bool(instead)
        )
    except UnreadableError as error:
        raise _error(path, str(error)) from error
    except OSError as error:
        raise _error(path, error.strerror or str(error)) from error


def _error(path: Path, reason: str) -> InputError:
    return InputError(f"model file {shorten(str(path), 150)} cannot be used: {reason}")


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UnreadableError(f"the safetensors file is damaged ({shorten(str(error))}); get it again") from error
    if metadata.get("format") != FORMAT:
        if foreign := find(state, path):
            return _of_foreign(path, foreign)
        raise UnreadableError(f"its metadata has no format {FORMAT}, and its {bare_state(state)}")
    try:
        class_name, stated = metadata["class_name"], json.loads(metadata["init_kwargs"])
        numbers = {name: float(metadata[name]) for name in ("D", "sigma_min", "sigma_max") if name in metadata}
    except (KeyError, ValueError, RecursionError) as error:
        raise UnreadableError(f"its metadata is damaged ({type(error).__name__} {shorten(str(error))})") from error
    init_kwargs, augmented = _split_kwargs(stated)
    return Checkpoint(
        path=path,
        format="safetensors",
        class_name=class_name,
        init_kwargs=init_kwargs,
        state=dequantized(state),
        D=_dimension({**augmented, **numbers}),
        sigma_min=numbers.get("sigma_min"),
        sigma_max=numbers.get("sigma_max"),
        sha256=sha256(path),
        classes=_class_names(metadata.get("classes", "")),
        metadata={key: value for key, value in sorted(metadata.items()) if key not in _RESERVED},
        scalars={name: value for name, value in numbers.items() if name != "D"},
    )


def _class_names(stated: str) -> tuple[str, ...]:
    """Reads a JSON list of names, or the names with commas between them, as version 0.1.0 wrote them."""
    if not stated.startswith("["):
        return tuple(stated.split(",")) if stated else ()
    try:
        names = json.loads(stated)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UnreadableError("its metadata is damaged (classes is no list of names)")
    return tuple(names)


def _read_pickled(path: Path, kind: str) -> Checkpoint:
    content = unpickled(path)
    if foreign := find_pickled(content, path):
        return _of_foreign(path, foreign)
    network, average, metadata = network_in(content, kind)
    attributes = cast(dict[str, Any], network.state)
    if attributes.get("_init_kwargs") is None or attributes.get("_init_args"):
        raise UnreadableError(
            "the arguments of its class were not saved (_init_kwargs is None, or some were given by position), so the "
            "model cannot be rebuilt; use a file that EDM's own training wrote"
        )
    record = NetworkRecord(network)
    tensors = average or record.tensors
    if sum(tensor.numbers.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise UnreadableError("its tensors share memory, which no network's do")
    init_kwargs, augmented = _split_kwargs(attributes["_init_kwargs"])
    class_name, scalars = network.name, record.scalars
    if class_name == edm2.CLASS:
        kind, class_name, init_kwargs = edm2.FORMAT, "EDM2Precond", edm2.arguments(init_kwargs)
        tensors, scalars = edm2.renamed(tensors), edm2.renamed(scalars)
        metadata |= {"latents": edm2.LATENTS} if init_kwargs.get("img_channels") == 4 else {}
    return Checkpoint(
        path=path,
        format=kind,
        class_name=class_name,
        init_kwargs=init_kwargs,
        state={key: tensor.load() for key, tensor in tensors.items()},
        D=_dimension({**augmented, **attributes}),
        sigma_min=record.scalars.get("sigma_min"),
        sigma_max=record.scalars.get("sigma_max"),
        sha256=sha256(path),
        metadata=metadata,
        scalars=scalars,
        source_sha256=network.source_sha256,
        known_source=all(m.source_sha256.startswith(KNOWN_SOURCES) for m in record.modules if isinstance(m, Record)),
    )


def _of_foreign(path: Path, found: Found, identity: str | None = None) -> Checkpoint:
    init_kwargs, _ = _split_kwargs(found.init_kwargs)
    return Checkpoint(
        path=path,
        format=found.format,
        class_name=found.class_name,
        init_kwargs=init_kwargs,
        state=found.state,
        D=None,
        sigma_min=init_kwargs.get("sigma_min"),
        sigma_max=init_kwargs.get("sigma_max"),
        sha256=identity or sha256(path),
        metadata=found.metadata,
    )


def _split_kwargs(stated: object) -> tuple[dict[str, Any], dict[str, object]]:
    """Checked init_kwargs of EDM's classes, and those that PFGM++ has added."""
    if not isinstance(stated, dict):
        raise UnreadableError(f"its init_kwargs are a {type(stated).__name__}, and have to be a dictionary")
    augmented = {key: stated[key] for key in ("D", "pfgmpp") if key in stated}
    own = {key: value for key, value in stated.items() if key not in augmented}
    return _plain(own, iter(range(_MAX_ITEMS))), augmented


def _plain(value: object, places: Iterator[int], depth: int = 0) -> Any:
    """A copy of a value that JSON can hold; bounded, as a list of a pickle can hold another, or itself, many times."""
    if depth > _MAX_DEPTH or next(places, None) is None:
        raise UnreadableError(f"its init_kwargs are nested too deep, or hold more than {_MAX_ITEMS} values")
    match value:
        case "Infinity" | "-Infinity":
            return float(value)
        case None | bool() | str():
            return value
        case int() if abs(value) <= _MAX_INTEGER:
            return value
        case float() if not math.isnan(value):
            return value
        case list() | tuple():
            return [_plain(item, places, depth + 1) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _plain(item, places, depth + 1) for key, item in value.items()}
    what = shorten(str(value)) if isinstance(value, int | float) else f"a {type(value).__name__}"
    raise UnreadableError(f"its init_kwargs hold {what}, which no network needs")


def _dimension(stated: Mapping[Any, object]) -> int | None:
    """D of PFGM++; None is Gaussian noise, which PFGM++ writes as D = inf or pfgmpp = False."""
    D = stated.get("D")
    if D in (None, math.inf) or not stated.get("pfgmpp", True):
        return None
    if isinstance(D, int | float) and 1 <= D <= MAX_DIMENSIONS and float(D).is_integer():
        return int(D)
    raise UnreadableError(f"its D is no positive integer up to {MAX_DIMENSIONS:,}, and not inf either")
