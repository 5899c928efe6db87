"""The moves of a noise path in words and numbers."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from restart_sampling.base.numbers import counted
from restart_sampling.sampling.move import Move, restart_jumps
from restart_sampling.sampling.process import Process


def explain_moves(moves: Sequence[Move], process: Process) -> str:
    """Says what moves are: main grid, restarts, and the std of the noise of each rise."""
    main = [moves[0].now, *(move.then for move in moves if not move.restart and not move.rises)]
    lines = [f"main grid  {counted(len(main) - 1, 'step')}: {describe_levels(main)}"]
    for restart, group in groupby(moves, key=lambda move: move.restart):
        if restart:
            lines += _explain_restart(list(group), process)
    if churn := [move for move in moves if move.rises and not move.restart]:
        lines.append(f"churn      {counted(len(churn), 'rise')} in the main grid: {_rise_table(churn, process)}")
    return "\n".join(lines)


def describe_levels(levels: Sequence[float]) -> str:
    """Writes levels to four digits."""
    return " ".join(f"{level:.4g}" for level in levels)


def _explain_restart(moves: Sequence[Move], process: Process) -> Iterator[str]:
    jumps = [place for place, jump in enumerate(restart_jumps(moves)) if jump]
    jump, *rest = moves[: jumps[1]] if len(jumps) > 1 else moves
    grid = [jump.then, *(move.then for move in rest if not move.rises)]
    yield (
        f"restart    {len(jumps)} x from {jump.now:.4g} up to {jump.then:.4g} with noise of std "
        f"{process.rise(jump.now, jump.then)[1]:.4g}, then {counted(len(grid) - 1, 'step')}: {describe_levels(grid)}"
    )
    if churn := [move for move in rest if move.rises]:
        yield f"           with churn in each pass: {_rise_table(churn, process)}"


def _rise_table(rises: Sequence[Move], process: Process) -> str:
    return ", ".join(
        f"{rise.now:.4g} to {rise.then:.4g} (std {process.rise(rise.now, rise.then)[1]:.4g})" for rise in rises
    )
