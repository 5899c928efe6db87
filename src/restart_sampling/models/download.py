"""Where a model file comes from: names, URLs, and the cache that keeps what was downloaded."""

import difflib
import hashlib
import ipaddress
import json
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from restart_sampling.errors import InputError
from restart_sampling.files import sha256, write_json
from restart_sampling.models.pickle_machine import shorten

BUNDLED = {"cifar10-small": Path(__file__).parent / "weights" / "cifar10-small.safetensors"}

_EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"
PUBLISHED = {
    "baseline-cifar10-32x32-uncond-vp": f"{_EDM}/baseline/baseline-cifar10-32x32-uncond-vp.pkl",
    "edm-cifar10-32x32-uncond-vp": f"{_EDM}/edm-cifar10-32x32-uncond-vp.pkl",
    "edm-imagenet-64x64-cond-adm": f"{_EDM}/edm-imagenet-64x64-cond-adm.pkl",
}
# Files that only a browser can fetch: the page, and the name in the cache.
BY_HAND = {
    "pfgmpp-cifar10-32x32-uncond-2048": (
        "https://drive.google.com/drive/folders/1sZ7vh7o8kuXfFjK8ROWXxtEZi8Srewgo",
        "pfgmpp-cifar10-32x32-uncond-2048.pt",
    ),
}

_SUFFIXES = (".safetensors", ".pkl", ".pt")
_HASHES = "sha256.json"
_TIMEOUT = 30.0  # seconds without an answer


def resolve(source: str | os.PathLike[str]) -> Path:
    """The local file of a model; what is not here yet is downloaded.

    Args:
        source: A name in `BUNDLED`, `PUBLISHED` or `BY_HAND`, an https:// URL (http:// to this machine only) or a path.

    Returns:
        Path of an existing file.

    Raises:
        InputError: There is no such name or file, or it could not be downloaded, or is not what it was at first use.
    """
    if isinstance(source, str):
        if source in BUNDLED:
            return BUNDLED[source]
        if source in PUBLISHED:
            return _fetch(PUBLISHED[source], f"{source}.pkl")
        if source in BY_HAND:
            return _by_hand(source)
        if "://" in source:
            _check_url(source)
            return _fetch(source, _file_name(source))
    path = Path(source)
    if path.is_file():
        return path
    if not isinstance(source, str) or path.suffix in _SUFFIXES or path.name != source or path.exists():
        raise InputError(f"model {str(source)!r} is not a file; give the path of a {', '.join(_SUFFIXES)} file")
    names = [*BUNDLED, *PUBLISHED, *BY_HAND]
    nearest = difflib.get_close_matches(source, names) or names
    raise InputError(
        f"model {source!r} is not known; it can be a name (nearest: {', '.join(nearest)}), an https:// URL, "
        f"or the path of a {', '.join(_SUFFIXES)} file"
    )


def cache_folder() -> Path:
    """Where downloads are kept: the environment's RESTART_SAMPLING_CACHE, or the platform's folder for caches."""
    given = os.environ.get("RESTART_SAMPLING_CACHE")
    return Path(given).expanduser() if given else Path(pooch.os_cache("restart-sampling"))


def _by_hand(name: str) -> Path:
    page, file_name = BY_HAND[name]
    path = cache_folder() / file_name
    if not path.is_file():
        raise InputError(f"model {name!r} cannot be downloaded by a program; get it from {page} and save it as {path}")
    _check_hash(path)
    return path


def _fetch(url: str, file_name: str) -> Path:
    """The file of a URL from the cache, downloaded at first use."""
    path = cache_folder() / file_name
    if not path.is_file():
        _download(url, path)
    _check_hash(path)
    return path


def _download(url: str, path: Path) -> None:
    pooch.get_logger().setLevel("WARNING")  # its advice about hashes is for programmers; we print our own line
    with ExitStack() as opened:

        def on_response(response: Any, **_: Any) -> None:
            opened.callback(response.close)
            if response.is_redirect:
                _check_url(urljoin(response.url, response.headers["location"]))

        downloader = pooch.HTTPDownloader(
            progressbar=opened.enter_context(_ProgressBar(path.name)),
            chunk_size=2**20,
            timeout=_TIMEOUT,
            hooks={"response": on_response},
        )
        try:
            pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent, downloader=downloader)
        except InputError:
            raise
        except (OSError, ValueError) as error:  # all errors of requests are OSErrors
            raise InputError(f"{_public(url)} could not be downloaded ({_reason(error)}); nothing was kept") from error


def _reason(error: BaseException) -> str:
    """The cause at the root of a failed download: the errors above it repeat the URL, with what may be secret in it."""
    response = getattr(error, "response", None)
    if response is not None:
        return shorten(f"{response.status_code} {response.reason}")
    while error.__context__ is not None:
        error = error.__context__
    return shorten(f"{type(error).__name__}: {error}")


def _check_url(url: str) -> None:
    """Refuse what could be read or changed on its way: all but https, and http within this machine."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"model {url!r} is not a URL ({error})") from error
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
        raise InputError(f"model {_public(url)!r} has to be an https:// URL (http:// only to this machine, 127.0.0.1)")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _public(url: str) -> str:
    """The URL without what may be secret: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _file_name(url: str) -> str:
    """A name in the cache that tells URLs apart and can be recognised."""
    last = re.sub(r"[^\w.-]", "_", Path(urlsplit(url).path).name, flags=re.ASCII)[-80:]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{last}"


def _check_hash(path: Path) -> None:
    """Compare a file of the cache with its hash at first use, and remember that at first use.

    Raises:
        InputError: The file has changed, or the remembered hashes cannot be read.
    """
    hashes_path = path.parent / _HASHES
    try:
        hashes = json.loads(hashes_path.read_text("utf-8")) if hashes_path.exists() else {}
        known = hashes.get(path.name)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"the hashes of downloaded models cannot be read from {hashes_path}; delete that file"
        ) from error
    digest = sha256(path)
    if known is None:
        try:
            write_json(hashes_path, {**hashes, path.name: digest})
        except OSError as error:
            raise InputError(
                f"{hashes_path} cannot be written ({error.strerror}); set RESTART_SAMPLING_CACHE"
            ) from error
        print(f"{path.name}: sha256 {digest}, remembered for later uses in {hashes_path}", file=sys.stderr)
    elif known != digest:
        raise InputError(
            f"{path} has changed: its sha256 is {digest}, and was {known} at first use; "
            f"if that is right, delete the file and its entry in {hashes_path}"
        )


class _ProgressBar:
    """A progress bar on a terminal's stderr, with the methods that pooch calls."""

    def __init__(self, name: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task(name, total=None)
        self.total = 0

    def __enter__(self) -> "_ProgressBar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, count: int) -> None:
        """Count bytes."""
        self._progress.update(self._task, advance=count, total=self.total or None)

    def reset(self) -> None:
        """Start again from 0 bytes."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Leave the bar to the context."""
