"""Lists of seeds: as users write them, and in blocks.

A network rounds a little differently in batches of another size, so work is dealt out, and taken up again, in whole
blocks. Where each is one batch (on the CPU, and wherever the user names the batch or wants exact images), neither the
number of processes nor an interruption changes a bit.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import chain, pairwise
from typing import TypeVar

from restart_sampling.base.errors import InputError
from restart_sampling.sampling.noise import seed_list

T = TypeVar("T")

MAX_SEEDS = 10_000_000


def parse_seeds(text: str) -> tuple[int, ...]:
    """Reads seeds and ranges with both ends, such as '0-49999' or '1,5,10-19'.

    Raises:
        InputError: not such a list, a range that ends before it begins, or a seed twice.
    """
    ranges: list[range] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,99})(?:-(\d{1,99}))?\s*", part)
        if match is None:
            raise InputError(
                f"seeds '{text}': cannot read '{part}'; write seeds and ranges such as 0-49999 or 1,5,10-19"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise InputError(f"seeds '{text}': the range {part} ends before it begins; write it as {last}-{first}")
        if last >= 2**63:
            raise InputError(f"seeds '{text}': {last} is out of range; seeds are integers from 0 to 2^63 - 1")
        ranges.append(range(first, last + 1))
    if sum(each.stop - each.start for each in ranges) > MAX_SEEDS:  # len() is for less than 2^63
        raise InputError(f"seeds '{text}': these are more than {MAX_SEEDS:,}; cut them into several runs")
    if any(one.stop > next_.start for one, next_ in pairwise(sorted(ranges, key=lambda each: each.start))):
        raise InputError(f"seeds '{text}': a seed is given twice; each seed makes one image")
    return tuple(chain.from_iterable(ranges))


def as_integers(values: Iterable[int]) -> Sequence[int]:
    """Returns seeds as a sequence of Python's integers; arrays and tensors [N] can be given too.

    Raises:
        InputError: one is no whole number or out of range, or they have no order.
    """
    return values if isinstance(values, range) else seed_list(values)


def format_seeds(seeds: Sequence[int]) -> str:
    """Writes seeds as `parse_seeds` reads them."""
    if isinstance(seeds, range) and seeds.step == 1 and len(seeds) > 1:
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds))


def cut(seeds: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cuts the seeds, or other things, into blocks of this size; the last one may be shorter."""
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def joined(blocks: Sequence[Sequence[int]]) -> list[int]:
    """Joins the seeds of blocks; in batches of the size of a block they are the blocks again.

    Args:
        blocks: some of those that `cut` made, in its order, so that the shorter one is the last.
    """
    return [seed for block in blocks for seed in block]
