"""The one exception that bad input ends with."""


class InputError(ValueError):
    """What was asked for cannot be done; the message says what was given, what is allowed and what to do.

    The command line prints the message as one sentence and exits with code 2.
    """
