"""The one exception that bad input ends with."""

from importlib.util import find_spec


class InputError(ValueError):
    """What was asked for cannot be done; the message says what was given, what is allowed and what to do.

    The command line prints the message as one sentence and exits with code 2.
    """


def require_extra(package: str, extra: str) -> None:
    """Makes sure that an optional package is there, before work begins that would need it at the end.

    Raises:
        InputError: it is not installed; the message names the extra that has it.
    """
    if find_spec(package) is None:
        raise InputError(f"this needs {package}, which is not installed: pip install 'restart-sampling[{extra}]'")
