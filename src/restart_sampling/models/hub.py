"""Models from the Hugging Face hub: `hf://owner/name`, perhaps with `@revision` and `/file`.

The files go through huggingface_hub's cache. Nothing in a repository is run.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from restart_sampling.base.errors import InputError, one_line, require_extra, shorten
from restart_sampling.base.files import sha256
from restart_sampling.base.pickles import UnreadableError
from restart_sampling.models.foreign import diffusers_folder

PREFIX = "hf://"
MODEL, PLAN = "model.safetensors", "plan.txt"
"""Names of the model and of the plan that suits it in a repository of this package."""

_NAME = r"[A-Za-z0-9][\w.-]*"
_REVISION = r"refs/\w+/[\w.-]+|[\w-][\w.+-]*(?:%2F[\w-][\w.+-]*)*"  # %2F is a slash, as in other programs of the hub
_PART = r"[^/\\.\x00-\x1f][^/\\\x00-\x1f]*"  # of a path, which leads nowhere else
_SOURCE = re.compile(rf"{PREFIX}({_NAME}/{_NAME})(?:@({_REVISION}))?(?:/((?:{_PART}/)*{_PART}))?", re.ASCII)


@cache
def fetch_model(source: str) -> Path:
    """Takes a model from the hub, or from huggingface_hub's cache; what is not there yet is downloaded.

    Args:
        source: `hf://owner/name[@revision][/file]`, with %2F for each / in the revision. Without a file it is
            `model.safetensors`, or else the `UNet2DModel` of a folder of diffusers, of which nothing else is
            downloaded.

    Returns:
        Path of the file, or of diffusers' folder; always the same within a process, though a branch may move.

    Raises:
        InputError: huggingface_hub is missing, there is no such repository, revision or file, no model that can be read
            is in it, it is damaged, or it is not in the cache and the hub cannot be reached.
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise InputError(
            f"model {source!r} is not of the form hf://owner/name, hf://owner/name@revision or "
            f"hf://owner/name@revision/file"
        )
    require_extra("huggingface_hub", "hub")
    repository, revision, file = match.groups()
    revision = revision and revision.replace("%2F", "/")

    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    with _told(source, repository, revision):
        if file is not None:
            return _checked(Path(hf_hub_download(repository, file, revision=revision)))
        small = [*diffusers_folder.CONFIGS, PLAN]
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=small))
        for name in small:
            if (folder / name).is_file():
                _checked(folder / name)
        places = [MODEL]
        if any((folder / name).is_file() for name in diffusers_folder.CONFIGS):
            places += diffusers_folder.weights_of(folder)
        for place in places:
            try:
                path = _checked(Path(hf_hub_download(repository, place, revision=folder.name)))  # named by the commit
            except EntryNotFoundError as error:
                missing = error
            else:
                return path if place == MODEL else folder
        raise missing


def _checked(path: Path) -> Path:
    """Compares a file of the cache with the hub's hash of it, by which the cache names it.

    That is the SHA-256 of a file of git-lfs, and git's own hash of a small one. Copies that were put into the cache by
    hand have no such name, and are as they are.
    """
    kept = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", kept.name):
        found = sha256(kept)
    elif re.fullmatch("[0-9a-f]{40}", kept.name):
        found = _git_sha1(kept)
    else:
        return path
    if found != kept.name:
        raise UnreadableError(f"{kept} is damaged, its hash is not its name; delete it, and use the model once more")
    return path


def _git_sha1(path: Path) -> str:
    """Computes the name that git has for the content of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextmanager
def _told(source: str, repository: str, revision: str | None) -> Iterator[None]:
    """Says in one sentence what went wrong on the hub, or on the way to it."""
    from huggingface_hub import constants, errors

    try:
        yield
    except UnreadableError as error:
        raise InputError(f"model {source} cannot be used: {error}") from error
    except errors.GatedRepoError as error:
        raise InputError(
            f"model {source}: the repository is gated; accept its terms at {constants.ENDPOINT}/{repository}, and log "
            "in with 'hf auth login' or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"model {source}: the hub shows no repository {repository}; look at its name, and where it is private or "
            "gated log in with 'hf auth login' or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"model {source}: the repository has no revision {revision}; give a branch, a tag or a commit of it, "
            "with %2F for each / in its name"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if answer := _answer(error):
            raise InputError(f"model {source} cannot be downloaded: {answer}") from error
        raise InputError(
            f"model {source} is not in the cache of the hub ({constants.HF_HUB_CACHE}; HF_HOME moves it), and the hub "
            f"{'is not asked, as HF_HUB_OFFLINE is set' if constants.HF_HUB_OFFLINE else 'cannot be reached'}; use it "
            "once with a connection, or bring the cache here"
        ) from error
    except errors.EntryNotFoundError as error:
        raise InputError(
            f"model {source} is not there; a repository holds {MODEL} of this package or a UNet2DModel of diffusers "
            "with its scheduler, and another file is named behind it: hf://owner/name/file"
        ) from error
    except Exception as error:  # those of the hub and of its HTTP client have no common base
        raise InputError(f"model {source} cannot be downloaded: {_told_by(error)}") from error


def _told_by(error: Exception) -> str:
    return _answer(error) or shorten(one_line(error), 200)


def _answer(error: BaseException | None) -> str:
    """Says what the hub answered in place of what was asked for; "" where it did not."""
    while error is not None and getattr(error, "response", None) is None:
        error = error.__cause__ or error.__context__
    if error is None:
        return ""
    code = int(error.response.status_code)  # type: ignore[attr-defined]
    if code in (401, 403):
        return f"the hub refuses the token ({code}); log in anew with 'hf auth login', or mend or unset HF_TOKEN"
    return f"the hub answers with the error {code}; try again later"


def check_upload(repository: str) -> None:
    """Makes sure, before long work, that a folder can be sent to a repository.

    Raises:
        InputError: the name is of another form, huggingface_hub or a token is missing, HF_HUB_OFFLINE is set, or the
            hub refuses the token or cannot be reached.
    """
    if not re.fullmatch(f"{_NAME}/{_NAME}", repository, re.ASCII):
        raise InputError(f"--to {repository}: give owner/name of a repository on the hub")
    require_extra("huggingface_hub", "hub")
    from huggingface_hub import HfApi, constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise InputError(f"--to {repository}: HF_HUB_OFFLINE is set; unset it to upload")
    if get_token() is None:
        raise InputError(
            f"--to {repository}: an upload needs a token with the right to write; log in with 'hf auth login' or set "
            "HF_TOKEN"
        )
    try:
        HfApi().whoami()
    except Exception as error:  # those of the hub and of its HTTP client have no common base
        raise InputError(f"--to {repository}: {_told_by(error)}; leave --to out, and nothing is uploaded") from error


def upload(folder: Path, repository: str, private: bool) -> str:
    """Sends a folder to a repository of the hub, as one commit; makes the repository where there is none.

    Args:
        folder: of the repository.
        repository: owner/name.
        private: whether only its owner is to see it.

    Returns:
        URL of the commit.

    Raises:
        InputError: the hub refuses or cannot be reached, or `private` is asked of a repository that all can see.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise InputError(f"--private: {repository} is there already, and all can see it; make it private first")
        return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Add the model").commit_url)
    except InputError:
        raise
    except Exception as error:  # those of the hub and of its HTTP client have no common base
        raise InputError(
            f"{folder} is written, but not uploaded: {_told_by(error)}; then 'hf upload {repository} {folder}' sends it"
        ) from error
