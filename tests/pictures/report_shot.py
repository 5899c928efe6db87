"""A small sweep of the bundled model, its report, and a picture of the report as a browser shows it.

    PYTHONPATH=tests python tests/pictures/report_shot.py FOLDER

The detector and the reference are stand-ins, so the distances mean nothing; the images are real.
"""

import sys
from pathlib import Path

import browser

from restart_sampling.cli import main
from sweeps import tiny_files

PLANS = "8\n14\n14 churn=4 s_min=0.5 s_max=20\n24 solver=ddpm\n9 [3,1,1.09,3.2]\n9 [3,2,1.09,3.2]\n9 [3,2,0.3,2.41]\n"


def shoot(folder: Path) -> None:
    if browser.find() is None:
        sys.exit(f"Chromium is not installed; looked for {', '.join(browser.NAMES)}")
    folder.mkdir(parents=True, exist_ok=True)
    tiny_files(folder, size=32)
    (folder / "plans.txt").write_text(PLANS)
    sweep = ["sweep", "--model", "cifar10-small", "--plans", folder / "plans.txt", "--out", folder / "sweep"]
    sweep += [
        "--reference",
        folder / "ref.npz",
        "--detector",
        folder / "tiny.pt",
        "--trust-detector",
        "--images",
        "5",
        "--batch",
        "10",
    ]
    command([*sweep, "--class", "automobile"])
    command(["report", folder / "sweep", "--out", folder / "report.html"])
    browser.screenshot((folder / "report.html").resolve(), folder / "report.png", height=2500)
    print(folder / "report.png")


def command(words: list[str | Path]) -> None:
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        if end.code:
            raise


if __name__ == "__main__":
    shoot(Path(sys.argv[1]))
