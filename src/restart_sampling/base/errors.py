"""`InputError`, raised for all bad input, and helpers for its message."""

from collections.abc import Iterable
from difflib import get_close_matches
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


def one_line(error: BaseException) -> str:
    """Takes the first line of what an error says; adds its kind, where it is not ours."""
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"


def shorten(text: str, limit: int = 100) -> str:
    """Makes one printable line of text from a file; leaves out its middle where it is longer than the limit."""
    line = printable(text if len(text) <= limit else text[:limit] + text[-limit:])
    return line if len(line) <= limit else f"{line[: limit // 2]}...{line[-limit // 2 :]}"


def printable(text: str) -> str:
    """Writes line ends and other characters that are not printed as Python does in texts."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Asks at the end of a message whether the nearest of the known words was meant; empty where none is near."""
    lower, own = {each.lower(): each for each in known}, word.lower()
    near = [each for each in lower if len(own) > 3 and own in each] or get_close_matches(own, lower, n=1)
    return f"; did you mean {lower[near[0]]}?" if near else ""
