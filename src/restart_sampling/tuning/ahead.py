"""Whether the minutes of a run suffice, by the first evaluations and before anything is measured."""

from collections.abc import Sequence

from restart_sampling.base.ranks import Ranks
from restart_sampling.evaluation.setup import EvaluationSetup
from restart_sampling.generation.drawing import Drawing
from restart_sampling.generation.timing import detector_seconds, seconds_per_image
from restart_sampling.tuning.clock import FEW, check_time, least_evaluations
from restart_sampling.tuning.search import Candidates
from restart_sampling.tuning.settings import Settings


def first_speed(drawing: Drawing, setups: Sequence[EvaluationSetup], nfe: int, ranks: Ranks) -> float:
    """Measures the evaluations a second of all processes, from the first ones of a batch and a call of each detector.

    Args:
        drawing: of any plan.
        setups: detectors, which take their time of each image.
        nfe: of the plans of the run.
        ranks: the processes.

    Raises:
        InputError: the images cannot be drawn.
    """
    second = seconds_per_image(drawing, range(FEW)) / drawing.nfe
    second += sum(detector_seconds(setup, drawing) for setup in setups) / nfe
    return ranks.size / second


def check_times(settings: Settings, spaces: Sequence[Candidates], speed: float) -> None:
    """Makes sure that time is left for a search in each of the spaces.

    Args:
        settings: how a plan is looked for.
        spaces: of the run, one for each NFE.
        speed: evaluations a second, of all processes.

    Raises:
        InputError: there is none, as the run would find out after a while.
    """
    for space in spaces:
        needed = least_evaluations(settings, space.nfe, len(space.usual())) / speed
        check_time(settings, space.nfe, speed, needed - 60 * settings.minutes)
