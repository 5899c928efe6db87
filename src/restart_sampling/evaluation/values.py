"""Measured numbers and their errors: how they are estimated, and how tables write them."""

from dataclasses import dataclass

from restart_sampling.base.numbers import is_number, rounded_to, with_error
from restart_sampling.evaluation.results_file import Result

CONFIDENCE = 0.95
"""Of the limit of a share that is 0 or 1."""


@dataclass(frozen=True)
class Value:
    """A measured number.

    Attributes:
        value: the number.
        error: its standard error or spread; None: there is none.
        like: a standard error that it is written to the place of, and which is not its own.
        draws: of as many independent ones the number is a share; None: it is no share.
    """

    value: float
    error: float | None = None
    like: float | None = None
    draws: float | None = None

    def written(self, between: str = " +- ") -> str:
        """Writes it for readers: with as many digits as its error lets it have, or `0 (< 0.049)` with its limit."""
        if self.draws and self.value in (0, 1):
            far = 1 - (1 - CONFIDENCE) ** (1 / self.draws)
            return f"1 (> {rounded_to(1 - far, far)})" if self.value else f"0 (< {rounded_to(far, far)})"
        if self.error is None:
            return rounded_to(self.value, self.like)
        return with_error(self.value, self.error, between=between)


def value_of(result: Result, key: str) -> Value | None:
    """Takes a number from a line of a results file, with what says how sure it is; None: it is not there."""
    if result.get(key) is None:
        return None
    errors = (result.get(f"{key}_{kind}") for kind in ("error", "std"))
    error = next((each for each in errors if each is not None), None)
    like = result.get("frechet_distance_error") if key == "frechet_distance_min" else None
    return Value(result[key], error, like, _draws(result, key))


def _draws(result: Result, key: str) -> float | None:
    images, real = result.get("images"), (result.get("reference") or {}).get("images")
    if key == "precision" and is_number(images):
        return images
    if key == "recall" and is_number(images) and is_number(real):
        return recall_draws(images, real)
    return None


def recall_draws(images: float, real: float) -> float:
    """Returns how many independent draws scatter as much as recall, the share of `real` images near generated ones.

    Its variance is p (1 - p) (1 / real + 1 / 2 images): the first is that of so many draws, and the second, of which
    images were generated, was measured. It is right for Gaussian features, and careful for 384 of CIFAR-10's images:
    differences of two sets of 1,000 had standard deviations of 0.0163 (1,000 real ones) and 0.0092 (5,000), where this
    says 0.0172 and 0.0118.
    """
    return 1 / (1 / real + 1 / (2 * images))


def share_error(share: float, draws: float) -> float:
    """Computes the standard error of a share of so many draws, which is not 0 where the share is 0 or 1.

    It is the standard deviation of the beta distribution of Jeffreys' prior.

    Source: Brown, Cai and DasGupta 2001, section 4.1.
    """
    likely = (share * draws + 0.5) / (draws + 1)
    return float((likely * (1 - likely) / (draws + 2)) ** 0.5)
