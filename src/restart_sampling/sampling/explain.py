"""What a sampler will do along a path, in words and numbers."""

from restart_sampling.sampling.path import NoisePath
from restart_sampling.sampling.process import VE, Process
from restart_sampling.sampling.solvers.by_name import make_solver


def explain_sampler(
    path: NoisePath, solver: str, restart_solver: str | None = None, s_noise: float = 1.0, process: Process = VE
) -> str:
    """Says what a sampler will do along a path: main grid, restarts, noise of each rise, and NFE.

    Args:
        path: its moves.
        solver: of the main grid, as `make_solver` reads it.
        restart_solver: of the restarts; default: the main grid's.
        s_noise: factor on the noise.
        process: of the model.
    """
    main_solver, other = make_solver(solver), make_solver(restart_solver or solver)
    lines = [path.explain(process)]
    if falls := path.noisy_falls(main_solver, other, process):
        lines.append(f"noise      in {len(falls)} falls, by the solver")
    if (path.rises or falls) and s_noise != 1:
        lines.append(f"s_noise    {s_noise:g} times all of this noise")
    nfe = path.nfe(main_solver, other)
    main = sum(main_solver.evaluations(move) for move in path.moves if not (move.rises or move.restart))
    lines.append(f"NFE        {nfe} = {main} in the main grid ({solver}) + {nfe - main} in restarts")
    return "\n".join(lines)
