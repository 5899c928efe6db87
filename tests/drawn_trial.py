"""A trial of Optuna without Optuna."""

import random


class Drawn:
    """A trial whose every suggestion is drawn."""

    def __init__(self, seed, **fixed):
        self.random, self.fixed = random.Random(seed), fixed

    def suggest_float(self, name, low, high, log=False):
        assert low <= high
        drawn = low * (high / low) ** self.random.random() if log else self.random.uniform(low, high)
        return self.fixed.get(name, drawn)

    def suggest_int(self, name, low, high):
        return self.fixed.get(name, self.random.randint(low, high))

    def suggest_categorical(self, name, choices):
        return self.fixed.get(name, self.random.choice(choices))
