"""Reference statistics: EDM's npz format, plus detector and image hashes to check comparisons."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.files import atomic, check_ratio, stand_in
from restart_sampling.evaluation.neighbours import radii
from restart_sampling.evaluation.statistics import Statistics
from restart_sampling.images.arrays import read_header


@dataclass(frozen=True)
class Reference:
    """What generated images are compared with.

    Attributes:
        statistics: of the set.
        detector: identity of the detector; None in EDM's own files, which do not say.
        detector_name: as its user wrote it, without folders; None in files that do not say.
        source: hash of the images; None likewise.
        features: float32 [N, d], for the metrics that need more than mean and covariance; None: not kept.
        labels: int64 [N]; None: no classes, or not kept.
        classes: the names of the classes 0, 1, ...; () where none are known, or no labels are kept.
        size: height and width of the images; None in files that do not say.
    """

    statistics: Statistics
    detector: str | None = None
    source: str | None = None
    features: Tensor | None = None
    labels: Tensor | None = None
    size: tuple[int, int] | None = None
    classes: tuple[str, ...] = ()
    detector_name: str | None = None

    @property
    def width(self) -> int:
        """Number of features of an image."""
        return len(self.statistics.mu)

    @cached_property
    def radii(self) -> Tensor:
        """Of the balls about its images, for precision: float64 [N], computed once."""
        assert self.features is not None
        return radii(self.features)

    @cached_property
    def _parts(self) -> dict[tuple[int, torch.device | None], "Reference"]:
        return {}

    def part(self, step: int = 1, device: torch.device | None = None) -> "Reference":
        """Takes each `step`-th of its images, features on a device; later calls get the same object and its radii."""
        if (step == 1 and device is None) or self.features is None:
            return self
        if (step, device) not in self._parts:
            labels = None if self.labels is None else self.labels[::step]
            self._parts[step, device] = replace(self, features=self.features[::step].to(device), labels=labels)
        return self._parts[step, device]

    def check_detector(self, identity: str, name: str) -> str | None:
        """Makes sure that features of this detector, of this name, may be compared with the reference.

        Returns:
            A note for the user where the file does not say which detector it was made with.

        Raises:
            InputError: it was made with another.
        """
        if self.detector is None:
            return "the reference does not say which detector made it (EDM's own files are made with inception)"
        if self.detector != identity:
            named = f"'{shorten(self.detector_name)}', " if self.detector_name else ""
            raise InputError(
                f"the reference was made with the detector {named}{self.detector}, and this is '{name}', {identity}; "
                f"name that one by --detector, or make the reference again with this detector"
            )
        return None


# Kinds of dtype, as numpy names them, and numbers of dimensions; mu and sigma have a message of their own.
_FORMS = {
    "mu": ("f", range(9)),
    "sigma": ("f", range(9)),
    "images": ("iu", [0]),
    "size": ("iu", [1]),
    "detector": ("U", [0]),
    "detector_name": ("U", [0]),
    "source": ("U", [0]),
    "features": ("f", [2]),
    "labels": ("iu", [1]),
    "classes": ("U", [1]),
}
_TEXTS = ("detector", "detector_name", "source")
_DTYPES = {"mu": np.float64, "sigma": np.float64, "features": np.float32, "labels": np.int64}


def save_reference(reference: Reference, path: Path) -> None:
    """Writes the npz whole: EDM's keys `mu` and `sigma`, then ours."""
    statistics = reference.statistics
    arrays = {"mu": statistics.mu.numpy(), "sigma": statistics.sigma.numpy()}
    if statistics.count is not None:
        arrays["images"] = np.array(statistics.count)
    if reference.size is not None:
        arrays["size"] = np.array(reference.size)
    if reference.features is not None:
        arrays["features"] = reference.features.numpy()
        if reference.labels is not None:
            arrays["labels"] = reference.labels.numpy()
            if reference.classes:
                arrays["classes"] = np.array(reference.classes)
    texts = {key: getattr(reference, key) for key in _TEXTS}
    arrays |= {key: np.array(text) for key, text in texts.items() if text is not None}
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_reference(path: Path) -> Reference:
    """Reads our npz, or EDM's. Nothing in it is unpickled.

    Raises:
        InputError: not such a file, or what it holds is not finite or has shapes that do not fit.
    """
    arrays = _read_arrays(path)
    _check_forms(path, arrays)
    with np.errstate(over="ignore"):  # what is too large becomes inf, and is refused
        arrays |= {key: arrays[key].astype(dtype) for key, dtype in _DTYPES.items() if key in arrays}
    _check_fit(path, arrays)
    size, classes = arrays.get("size"), arrays.get("classes")
    tensors = {key: torch.from_numpy(arrays[key]) for key in _DTYPES if key in arrays}
    count = int(arrays["images"]) if "images" in arrays else None
    return Reference(
        Statistics(count, tensors["mu"], tensors["sigma"]),
        **{key: str(arrays[key]) for key in _TEXTS if key in arrays},
        features=tensors.get("features"),
        labels=tensors.get("labels"),
        size=None if size is None else (int(size[0]), int(size[1])),
        classes=() if classes is None else tuple(classes.tolist()),
    )


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what is ours in the file, of sizes that the file itself can have."""
    try:
        with np.load(path, allow_pickle=False) as file:
            sizes = {entry.filename: entry.file_size for entry in file.zip.infolist()}
            known = [key for key in _FORMS if key in file.files]  # what else is there may be of any size
            unpacked = sum(sizes[name] for key in known for name in (key, f"{key}.npy") if name in sizes)
            check_ratio(unpacked, path.stat().st_size, f"reference {path}", "statistics")
            for name in (f"{key}.npy" for key in known if f"{key}.npy" in sizes):
                with file.zip.open(name) as entry:
                    shape, _, dtype = read_header(entry)
                if math.prod(shape) * dtype.itemsize > sizes[name]:
                    raise ValueError(f"{name} is {dtype} {list(shape)} in {sizes[name]} bytes")
            return {key: np.asarray(file[key]) for key in known}  # bytes, where an entry is no array
    except InputError:
        raise
    except OSError as error:
        reason = error.strerror or "it is damaged"
        raise InputError(
            f"reference {path} cannot be read ({reason}); make one with 'restart-sampling reference'"
        ) from error
    except Exception as error:  # a damaged file can fail in any way
        instead = stand_in(path)
        what = f": it is {instead}" if instead else "; make one with 'restart-sampling reference'"
        raise InputError(f"reference {path} cannot be read{what}") from error


def _check_forms(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Makes sure that there are statistics, and that the arrays are of the kinds that they have to be."""
    missing = {"mu", "sigma"} - arrays.keys()
    if missing:
        raise InputError(f"reference {path} has no {' and no '.join(sorted(missing))}; it is not a file of statistics")
    for key, (kinds, dims) in _FORMS.items():
        array = arrays.get(key)
        if array is not None and (array.dtype.kind not in kinds or array.ndim not in dims):
            raise InputError(f"reference {path}: {key} is {array.dtype} {list(array.shape)}; make it again")
    mu, sigma = arrays["mu"], arrays["sigma"]
    if mu.ndim != 1 or not len(mu) or sigma.shape != (len(mu), len(mu)):
        raise InputError(
            f"reference {path}: mu has shape {mu.shape} and sigma {sigma.shape}; they must be [d] and [d, d]"
        )


def _check_fit(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Makes sure that the arrays of a file fit one another."""
    mu, sigma = arrays["mu"], arrays["sigma"]
    count, features, labels, size, classes = map(arrays.get, ("images", "features", "labels", "size", "classes"))
    if (
        (features is not None and features.shape[1] != len(mu))
        or (labels is not None and (features is None or len(labels) != len(features)))
        or (size is not None and (len(size) != 2 or size.min() < 1))
        or (count is not None and (count < 2 or (features is not None and len(features) != count)))
    ):
        raise InputError(
            f"reference {path}: its features, labels, size and images do not fit its statistics; make it again"
        )
    if labels is not None and labels.min(initial=0) < 0:
        raise InputError(f"reference {path}: it has the class {labels.min()}, and a class is 0, 1, ...; make it again")
    if classes is not None and (
        labels is None or labels.max(initial=0) >= len(classes) or len({*classes.tolist()}) < len(classes)
    ):
        raise InputError(f"reference {path}: the names of its classes do not fit its labels; make it again")
    if not all(np.isfinite(each).all() for each in (mu, sigma, features) if each is not None):
        raise InputError(f"reference {path}: its statistics are not finite; make it again")
    _check_moments(path, mu, sigma, features)


def _check_moments(path: Path, mu: np.ndarray, sigma: np.ndarray, features: np.ndarray | None) -> None:
    """Makes sure that sigma can be a covariance, and mu the mean of the features, but for rounding.

    Raises:
        InputError: they cannot.
    """
    spread = np.sqrt(sigma.diagonal().clip(min=0))
    with np.errstate(over="ignore"):
        # Others compute in float32, perhaps as E[x xᵀ] - mu muᵀ.
        rounding = 1e-6 * (np.abs(sigma).max() + np.square(mu).max())
    products = np.outer(spread, spread)
    most = 1.001 * products + rounding  # Cauchy and Schwarz
    if (np.abs(sigma) > most).any() or (np.abs(sigma - sigma.T) > 1e-3 * products + rounding).any():
        raise InputError(f"reference {path}: sigma is no covariance (symmetric, |s_ij|² <= s_ii s_jj); make it again")
    if features is not None and len(features):
        off = np.abs(features.mean(axis=0, dtype=np.float64) - mu)
        if (off > 1e-3 * spread + 1e-6 * np.abs(mu).max()).any():
            raise InputError(f"reference {path}: mu is not the mean of its features; make it again")
