"""Files from the network, kept in one cache and checked at every use."""

import hashlib
import ipaddress
import json
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin, urlsplit

import pooch
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from restart_sampling.base import files
from restart_sampling.base.errors import InputError, shorten
from restart_sampling.base.lock import alone

_HASHES = "sha256.json"
_TIMEOUT = 30.0  # seconds without an answer
_PATIENCE = 600.0  # seconds, while another process downloads the same


def cache_folder() -> Path:
    """Returns where downloads are kept: RESTART_SAMPLING_CACHE, or the platform's folder for caches.

    Raises:
        InputError: RESTART_SAMPLING_CACHE begins with the home of somebody who has none.
    """
    given = os.environ.get("RESTART_SAMPLING_CACHE")
    try:
        return Path(given).expanduser() if given else Path(pooch.os_cache("restart-sampling"))
    except RuntimeError as error:
        raise InputError(
            f"RESTART_SAMPLING_CACHE is {given}, which is nobody's home; give the path of a folder"
        ) from error


def fetch(url: str, file_name: str | None = None, sha256: str | None = None) -> Path:
    """Takes the file of a URL from the cache; downloads it at first use.

    Args:
        url: https://, or http:// to this machine only.
        file_name: its name in the cache; default: one that tells URLs apart.
        sha256: what its hash must be; default: what it was at first use, which is printed and remembered.

    Raises:
        InputError: the URL is of another kind, the cache cannot be written, the download failed, or the file is not
            what it should be.
    """
    _check_url(url)
    path = cache_folder() / (file_name or _file_name(url))
    if not path.is_file():
        files.check_writable(path)
        with alone(path, "RESTART_SAMPLING_CACHE", _PATIENCE):
            if not path.is_file():  # another process may have come first
                _download(url, path, sha256)
    check_hash(path, sha256)
    return path


def _download(url: str, path: Path, sha256: str | None) -> None:
    """Downloads a file that appears whole and right, or not at all."""
    pooch.get_logger().setLevel("WARNING")  # its advice about hashes is for programmers; we print our own line
    columns = (TextColumn(path.name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with (
        ExitStack() as opened,
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
    ):
        task = progress.add_task(path.name, total=None)
        bar = SimpleNamespace(total=0, reset=lambda: progress.reset(task), close=lambda: None)
        bar.update = lambda count: progress.update(task, advance=count, total=bar.total or None)

        def on_response(response: Any, **_: Any) -> None:
            opened.callback(response.close)
            bar.reset()  # of an earlier try
            if response.is_redirect:
                _check_url(urljoin(response.url, response.headers["location"]))

        options = {"chunk_size": 2**20, "timeout": _TIMEOUT, "hooks": {"response": on_response}}
        download = pooch.HTTPDownloader(progressbar=bar, **options)

        def checked(url: str, file: str, pooch: Any) -> None:
            download(url, file, pooch)
            if instead := files.stand_in(Path(file)):
                raise InputError(f"nothing was kept of {_public(url)}, as the file is {instead}")

        try:
            with files.scratch_folder(path) as folder:
                known, urls = {path.name: sha256}, {path.name: url}
                pooch.create(folder, "", registry=known, urls=urls, retry_if_failed=2).fetch(
                    path.name, downloader=checked
                )
                (folder / path.name).replace(path)
        except InputError:
            raise
        except (OSError, ValueError) as error:  # all errors of requests are OSErrors
            raise InputError(
                f"{_public(url)} could not be downloaded ({_reason(error)}); "
                f"nothing was kept; try again, or put the file there by hand: {path}"
            ) from error


def _reason(error: BaseException) -> str:
    """Names the root of a failed download: the errors above it repeat the URL, with what may be secret in it."""
    response = getattr(error, "response", None)
    if response is not None:
        return shorten(f"{response.status_code} {response.reason}")
    while error.__context__ is not None:
        error = error.__context__
    return shorten(f"{type(error).__name__}: {error}")


def _check_url(url: str) -> None:
    """Refuses what could be read or changed on its way: all but https, and http within this machine."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url!r} is not a URL ({error})") from error
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
        raise InputError(f"{_public(url)!r} has to be an https:// URL (http:// only to this machine, 127.0.0.1)")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _public(url: str) -> str:
    """Leaves out of a URL what may be secret: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _file_name(url: str) -> str:
    """Makes a name in the cache that tells URLs apart and can be recognised."""
    last = re.sub(r"[^\w.-]", "_", Path(urlsplit(url).path).name, flags=re.ASCII)[-80:]
    return f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{last}"


def check_hash(path: Path, sha256: str | None = None) -> None:
    """Compares a file of the cache with the hash that it must have, or had at first use; remembers that at first use.

    Raises:
        InputError: the file is not what it should be, or the remembered hashes cannot be read.
    """
    digest = files.sha256(path)
    if sha256 is not None:
        if digest != sha256:
            raise InputError(
                f"{path} has sha256 {digest}, and must have {sha256}; delete it, or put the right file there"
            )
        return
    hashes_path = path.parent / _HASHES
    try:
        hashes = json.loads(hashes_path.read_text("utf-8")) if hashes_path.exists() else {}
        known = hashes.get(path.name)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"the hashes of downloads cannot be read from {hashes_path}; delete that file") from error
    if known is None:
        try:
            files.write_json(hashes_path, {**hashes, path.name: digest})
        except OSError as error:
            reason = error.strerror
            raise InputError(f"{hashes_path} cannot be written ({reason}); set RESTART_SAMPLING_CACHE") from error
        print(f"{path.name}: sha256 {digest}, remembered for later uses in {hashes_path}", file=sys.stderr)
    elif known != digest:
        raise InputError(
            f"{path} has changed: its sha256 is {digest}, and was {known} at first use; "
            f"if that is right, delete the file and its entry in {hashes_path}"
        )
