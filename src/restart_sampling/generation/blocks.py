"""Blocks: seeds that are drawn in one batch, always the same ones, whoever draws them and whenever.

A network rounds a little differently in batches of another size, so work is dealt out, and taken up again, in whole
blocks: then neither the number of processes nor an interruption changes a bit.
"""

from collections.abc import Sequence


def cut(seeds: Sequence[int], size: int) -> list[Sequence[int]]:
    """Cuts the seeds into blocks of this size; the last one may be shorter."""
    return [seeds[start : start + size] for start in range(0, len(seeds), size)]


def joined(blocks: Sequence[Sequence[int]]) -> list[int]:
    """Joins the seeds of blocks; in batches of the size of a block they are the blocks again.

    Args:
        blocks: some of those that `cut` made, in its order, so that the shorter one is the last.
    """
    return [seed for block in blocks for seed in block]
