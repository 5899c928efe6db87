"""Where a model file comes from: bundled and published names, the hub, URLs, paths."""

import difflib
import os
from pathlib import Path

from restart_sampling.base.download import cache_folder, check_hash, fetch
from restart_sampling.base.errors import InputError
from restart_sampling.base.files import decode_text
from restart_sampling.base.numbers import require_kind
from restart_sampling.models.by_name import BUNDLED, BY_HAND, PUBLISHED
from restart_sampling.models.default_plans import DEFAULT_PLANS
from restart_sampling.models.hub import MODEL, PLAN, PREFIX, fetch_model
from restart_sampling.sampling.plan import Plan

_SUFFIXES = (".safetensors", ".pkl", ".pt", ".pth")
_PATHS = f"the path of a {', '.join(_SUFFIXES)} file or of a folder of diffusers or of a repository"
_MAX_PLAN = 10_000  # bytes


def resolve(source: str | os.PathLike[str]) -> Path:
    """Finds the local file of a model, or its folder, as diffusers has; what is not here yet is downloaded.

    Args:
        source: a name in `BUNDLED`, `PUBLISHED` or `BY_HAND`, hf://owner/name (see `fetch_model`), an https:// URL
            (http:// to this machine only) or a path; of a folder with `model.safetensors` that file.

    Returns:
        Path of an existing file or folder.

    Raises:
        InputError: there is no such name or file, or it could not be downloaded, or is not what it was at first use.
    """
    require_kind("the model", source, (str, os.PathLike), "its name, its URL or its path")
    if isinstance(source, str):
        if source in BUNDLED:
            return BUNDLED[source]
        if source in PUBLISHED:
            return fetch(PUBLISHED[source], f"{source}.pkl")
        if source in BY_HAND:
            return _by_hand(source)
        if source.startswith(PREFIX):
            return fetch_model(source)
        if "://" in source:
            return fetch(source)
    path = Path(source)
    if (path / MODEL).is_file():
        return path / MODEL
    if path.is_file() or any((path / name).is_file() for name in ("model_index.json", "config.json")):
        return path
    if not isinstance(source, str) or path.suffix in _SUFFIXES or path.name != source or path.exists():
        raise InputError(f"model {str(source)!r} is not a file; give {_PATHS}")
    names = [*BUNDLED, *PUBLISHED, *BY_HAND]
    nearest = difflib.get_close_matches(source, names) or names
    raise InputError(
        f"model {source!r} is not known; it can be a name (nearest: {', '.join(nearest)}), hf://owner/name, an "
        f"https:// URL, or {_PATHS}"
    )


def default_plan(path: Path) -> str | None:
    """Finds the plan of a model of the package, by its file, or the one in its repository; None of others.

    Raises:
        InputError: the repository's `plan.txt` holds no plan.
    """
    for name, bundled in BUNDLED.items():
        if bundled == path:
            return DEFAULT_PLANS[name]
    # A repository's folder is as `fetch_model` and `model push` make it.
    folder = path if path.is_dir() else path.parent if path.name == MODEL else None
    if folder is None or not (file := folder / PLAN).is_file():
        return None
    with file.open("rb") as opened:
        text = decode_text(opened.read(_MAX_PLAN), str(file)).strip()
    if text.endswith(".json"):
        raise InputError(f"{file} names another file; write the plan itself into it")
    try:
        return str(Plan.parse(text))
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def default_plan_of(source: str) -> str | None:
    """Finds the same by the name of a model; only one of the hub is downloaded for it.

    Raises:
        InputError: as `resolve` and `default_plan`.
    """
    if source in DEFAULT_PLANS:
        return DEFAULT_PLANS[source]
    if source.startswith(PREFIX) or Path(source).exists():
        return default_plan(resolve(source))
    if "://" not in source and source not in (*PUBLISHED, *BY_HAND):
        resolve(source)  # says what is wrong with the name
    return None


def _by_hand(name: str) -> Path:
    page, file_name = BY_HAND[name]
    path = cache_folder() / file_name
    if not path.is_file():
        raise InputError(f"model {name!r} cannot be downloaded by a program; get it from {page} and save it as {path}")
    check_hash(path)
    return path
