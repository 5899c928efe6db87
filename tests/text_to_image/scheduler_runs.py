"""What the tests of the schedulers alone share: a network, a run as pipelines do it, and their progress bar."""

import torch

PLAN = [[4, 2, 0.1, 2.0], [3, 1, 3.0, 6.0]]
FLOW_PLAN = [[4, 2, 0.2, 0.6], [3, 1, 0.7, 0.9]]


def network(x, timestep):
    """Any smooth function will do."""
    return torch.tanh(x * (1 + torch.as_tensor(timestep) / 1000))


def run(scheduler, x, begin=0, generator=None, **steps):
    """What a pipeline does: the states at each row, and the last one."""
    scheduler.set_timesteps(**steps)
    scheduler.set_begin_index(begin)
    states = []
    for timestep in scheduler.timesteps[begin:]:
        states.append(x)
        scaled = scheduler.scale_model_input(x, timestep) if hasattr(scheduler, "scale_model_input") else x
        more = {} if generator is None else {"generator": generator}
        x = scheduler.step(network(scaled, timestep), timestep, x, **more).prev_sample
    return [*states, x]


def start(scale=1.0, images=2):
    return scale * torch.randn(images, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def ticks(scheduler, steps):
    """The rule that every pipeline has."""
    rows = len(scheduler.timesteps)
    warmup = rows - steps * scheduler.order
    return sum(i == rows - 1 or (i + 1 > warmup and (i + 1) % scheduler.order == 0) for i in range(rows))
