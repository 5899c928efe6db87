"""Headless Chromium, where it is installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def look(page: Path, *options: str) -> str:
    """Opens a page without internet; returns what Chromium prints."""
    command = find()
    assert command
    with tempfile.TemporaryDirectory() as profile:
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses it to root
        words = [command, "--headless", *sandbox, "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        words += ["--host-resolver-rules=MAP * ~NOTFOUND", "--force-device-scale-factor=1", *options, page.as_uri()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def screenshot(page: Path, out: Path, width: int = 1280, height: int = 2400) -> None:
    look(page, f"--screenshot={out}", f"--window-size={width},{height}")
