"""The command line: one file per command; other files hold shared options.

The modules of the commands import torch and everything heavy inside their functions, so that help comes at once.
"""

import signal
import sys
import time
import warnings
from _thread import interrupt_main, start_new_thread
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click

from restart_sampling import __version__
from restart_sampling.base.errors import InputError, printable

_COMMANDS = (
    "app",
    "dataset",
    "demo",
    "doctor",
    "evaluate",
    "figure",
    "generate",
    "model",
    "plan",
    "reference",
    "report",
    "results",
    "sweep",
    "text",
    "train",
    "tune",
)
"""Each is in a module of its name beside this one."""

_GO_ON = {"compare", "evaluate", "generate", "sweep", "train", "tune"}
"""Commands (of `text`, too) that take up what they have done before."""


class Command(click.Command):
    """Refuses an option that is given twice, of which click would take the last value without a word."""

    def make_parser(self, ctx: click.Context) -> Any:
        """Makes click's parser, which here refuses an option that is given twice before it reads any value."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> tuple[dict[str, Any], list[str], list[click.Parameter]]:
            values, rest, given = parse(args)
            if not ctx.resilient_parsing and not any(each.is_eager for each in given):  # as --help is
                _check_once([each for each in given if isinstance(each, click.Option) and not each.multiple])
            return values, rest, given

        parser.parse_args = parse_args  # type: ignore[method-assign]
        return parser


def _check_once(given: list[click.Option]) -> None:
    before: dict[str | None, str] = {}
    for option in given:
        name = option.opts[0]
        other = before.get(option.name)  # which flags for the values of one setting share
        if other == name:
            raise click.UsageError(f"{name} is given twice; give it once")
        if other is not None:
            raise click.UsageError(f"{other} and {name} exclude each other; give one of them")
        before[option.name] = name


class Group(click.Group):
    """A group whose commands are of that class; a command that it does not have is answered by those that it has."""

    command_class = Command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Finds the command that is named first."""
        if not (args[0].startswith("-") or ctx.resilient_parsing or self.get_command(ctx, args[0])):
            raise click.UsageError(f"there is no command '{args[0]}'; give one of {', '.join(self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class _Commands(Group):
    """Imports a command's module when the command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"restart_sampling.cli.{name}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="restart-sampling")
def cli() -> None:
    """Restart, ODE and SDE samplers for diffusion models: a sampler is a path of noise levels."""


@contextmanager
def _tidy_end() -> Iterator[None]:
    """Lets SIGTERM, as SIGINT, end the body by an exception, so that it gives back what it has taken.

    torchrun sends the one right after the other: only the first counts. Another error that comes of it, in C code or
    while something is given back, is not said. Where Python drops the exception, while an object is taken apart, the
    signal comes once more.
    """
    ended: BaseException | None = None
    report = sys.unraisablehook

    def end(number: int, _: object) -> None:
        nonlocal ended
        if number == signal.SIGTERM and ended:
            return
        ended = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        raise ended

    def once_more(dropped: "sys.UnraisableHookArgs") -> None:
        nonlocal ended
        if ended is None or dropped.exc_value is not ended:
            report(dropped)
            return
        number = signal.SIGINT if isinstance(ended, KeyboardInterrupt) else signal.SIGTERM
        ended = None

        def send() -> None:
            time.sleep(0.01)  # until Python is out of there
            interrupt_main(number)

        start_new_thread(send, ())

    sys.unraisablehook = once_more
    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception:
        if ended:
            raise ended from None
        raise
    finally:
        sys.unraisablehook = report
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line. Bad input ends with one sentence on standard error and exit code 2."""
    # Before the first line of a command, and while the last one is said. No `suppress`: a second Ctrl-C can end that.
    try:
        status = _run(arguments)
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


def _run(arguments: Sequence[str] | None) -> int:
    """Runs the command line; returns the exit code."""
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow's; ours is lower, and an error
    try:
        with _tidy_end():
            status = cli.main(arguments, prog_name="restart-sampling", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except InputError as error:
        click.echo(f"restart-sampling: {printable(str(error))}", err=True)
        return 2
    except click.ClickException as error:  # click writes choices one a line
        click.echo(f"restart-sampling: {' '.join(error.format_message().split())}", err=True)
        return 2
    except OSError as error:  # a full disk, a folder that went away
        click.echo(f"restart-sampling: {error.filename or 'a file'}: {error.strerror or error}", err=True)
        return 2
    except (KeyboardInterrupt, click.Abort):
        words = sys.argv[1:] if arguments is None else [str(word) for word in arguments]
        goes_on = "; the same command goes on from here" if _GO_ON.intersection(words[:2]) else ""
        click.echo(f"restart-sampling: interrupted{goes_on}", err=True)
        return 130
    return status if isinstance(status, int) else 0
