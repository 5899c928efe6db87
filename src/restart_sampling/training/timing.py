"""`seconds_per_step`: how long a step of training will take, from the first two."""

import time

from restart_sampling.training.trainer import Trainer, steps_of_training

PATIENCE = 10.0


def seconds_per_step(trainer: Trainer) -> float:
    """Takes two steps, and measures the second: the first compiles, and picks algorithms.

    It is measured itself where it takes more than `PATIENCE` seconds. What the trainer has learnt is of no use
    afterwards.
    """
    seconds = 0.0
    with steps_of_training(trainer.ranks.device):
        for _ in range(2):
            start = time.perf_counter()
            trainer.step(0.0)
            trainer.end_round()  # waits for the device
            seconds = time.perf_counter() - start
            if seconds > PATIENCE:
                break
    return seconds
