"""Command lines of tests."""


def instead(words, *more):
    """A command line with more words, whose options take the place of its own."""
    kept, dropped = [], False
    for word in map(str, words):
        if word.startswith("--"):
            dropped = word in more
        if not dropped:
            kept.append(word)
    return *kept, *more
