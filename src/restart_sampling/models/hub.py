"""Models from the Hugging Face hub: `hf://owner/name`, perhaps with `@revision` and `/file`.

The files go through huggingface_hub's cache. Nothing in a repository is run.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from restart_sampling.base.errors import InputError, one_line, require_extra, shorten
from restart_sampling.base.pickles import UnreadableError
from restart_sampling.models.foreign import diffusers_folder

PREFIX = "hf://"
MODEL, PLAN = "model.safetensors", "plan.txt"
"""Names of the model and of the plan that suits it in a repository of this package."""

_NAME = r"[A-Za-z0-9][\w.-]*"
_SOURCE = re.compile(
    rf"{PREFIX}({_NAME}/{_NAME})(?:@(refs/\w+/[\w.-]+|[\w.-]+))?(?:/((?:[\w-][\w. -]*/)*[\w-][\w. -]*))?", re.ASCII
)


@cache
def fetch_model(source: str) -> Path:
    """Takes a model from the hub, or from huggingface_hub's cache; what is not there yet is downloaded.

    Args:
        source: `hf://owner/name[@revision][/file]`. Without a file it is `model.safetensors`, or else the `UNet2DModel`
            of a folder of diffusers, of which nothing else is downloaded.

    Returns:
        Path of the file, or of diffusers' folder; always the same within a process, though a branch may move.

    Raises:
        InputError: huggingface_hub is missing, there is no such repository, revision or file, no model that can be read
            is in it, or it is not in the cache and the hub cannot be reached.
    """
    match = _SOURCE.fullmatch(source)
    if match is None:
        raise InputError(
            f"model {source!r} is not of the form hf://owner/name, hf://owner/name@revision or "
            f"hf://owner/name@revision/file"
        )
    require_extra("huggingface_hub", "hub")
    repository, revision, file = match.groups()

    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError

    with _told(source, repository, revision):
        if file is not None:
            return Path(hf_hub_download(repository, file, revision=revision))
        small = [*diffusers_folder.CONFIGS, PLAN]
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=small))
        places = [MODEL]
        if any((folder / name).is_file() for name in diffusers_folder.CONFIGS):
            places += diffusers_folder.weights_of(folder)
        for place in places:
            try:
                path = Path(hf_hub_download(repository, place, revision=folder.name))  # its name is that of the commit
            except EntryNotFoundError as error:
                missing = error
            else:
                return path if place == MODEL else folder
        raise missing


def in_repository(path: Path, name: str) -> Path | None:
    """Finds a file beside a model where both are of a repository folder, as `fetch_model` and `model push` make it."""
    folder = path if path.is_dir() else path.parent if path.name == MODEL else None
    return folder / name if folder is not None and (folder / name).is_file() else None


@contextmanager
def _told(source: str, repository: str, revision: str | None) -> Iterator[None]:
    """Says in one sentence what went wrong on the hub, or on the way to it."""
    from huggingface_hub import constants, errors

    try:
        yield
    except UnreadableError as error:
        raise InputError(f"model {source} cannot be used: {error}") from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"model {source}: the hub shows no repository {repository}; look at its name, and where it is private or "
            "gated log in with 'hf auth login' or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"model {source}: the repository has no revision {revision}; give a branch, a tag or a commit of it"
        ) from error
    except errors.LocalEntryNotFoundError as error:
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
        raise InputError(f"model {source} cannot be downloaded ({shorten(one_line(error), 200)})") from error


def check_upload(repository: str) -> None:
    """Makes sure, before long work, that a folder can be sent to a repository.

    Raises:
        InputError: the name is of another form, huggingface_hub or a token is missing, or HF_HUB_OFFLINE is set.
    """
    if not re.fullmatch(f"{_NAME}/{_NAME}", repository, re.ASCII):
        raise InputError(f"--to {repository}: give owner/name of a repository on the hub")
    require_extra("huggingface_hub", "hub")
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise InputError(f"--to {repository}: HF_HUB_OFFLINE is set; unset it to upload")
    if get_token() is None:
        raise InputError(
            f"--to {repository}: an upload needs a token with the right to write; log in with 'hf auth login' or set "
            "HF_TOKEN"
        )


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
            f"{folder} is written, but not uploaded ({shorten(one_line(error), 200)}); then "
            f"'hf upload {repository} {folder}' sends it"
        ) from error
