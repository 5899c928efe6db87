"""What a search may be asked for. Imports nothing heavy: `--help` says it too."""

GROUPS = 10
"""Of each block of seeds, for its jackknife."""
ROUNDS = 4
"""Of the race."""
MULTIPLES = {"images": GROUPS, "race": ROUNDS * GROUPS, "confirm": GROUPS}
"""Images are a multiple of these, and at least two of them."""
LEAST_STEPS = 3
LEAST_NFE = LEAST_STEPS + 1
"""Three steps, and a step of a restart."""
SEARCHES = ("tpe", "cma-es", "random")
"""Who suggests plans."""
MOST_START = 4293
"""NumPy's seeds, of 32 bits, have room for a million trials of each."""


def allowed_images(name: str) -> str:
    """Says how many images a setting may have."""
    parts = MULTIPLES[name]
    return f"a multiple of {parts}, at least {2 * parts}"
