"""Figures, pictures and report pages, from results files and batches of images."""

import os
from contextlib import suppress

from restart_sampling.base.errors import require_extra


def _import_matplotlib() -> None:
    """Imports matplotlib, even where MPLBACKEND names a backend that is not installed here.

    A shell that was opened from a notebook has such a name, and the import ends at it. Files need no backend; one that
    is there stays the choice of whoever plots to a screen in the same process.
    """
    require_extra("matplotlib", "figures")
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib as mpl
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend:
        with suppress(ValueError):
            mpl.rcParams["backend"] = backend


_import_matplotlib()
