"""The command line: `jaxneuron demo`, `info`, `convert`, `run` and `plot`, each in a file of its own.

The file of a command has `add_parser`, which adds the command's parser to `commands` and sets the function
that executes the command.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from typing import NoReturn

import jaxneuron
from jaxneuron.cli import convert, demo, info, plot, run


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns its exit status.

    It is 0 for success, 1 if the reader of standard output has gone, 130 if the command was interrupted, and
    2 for any other error. Before 2 and 130, one line on standard error says what happened.
    """
    # Python drops an exception that is raised in a callback of JAX during garbage collection. So `run` also
    # looks at this list.
    stops: list[int] = []

    def stop(signum: int, _: object) -> None:
        stops.append(signum)
        raise KeyboardInterrupt

    with contextlib.suppress(ValueError):  # signal.signal raises it outside the main thread
        for each in (signal.SIGINT, signal.SIGTERM):
            # A shell starts background processes with SIGINT ignored: leave it so.
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, stop)
    report = sys.unraisablehook
    sys.unraisablehook = lambda lost: None if stops and lost.exc_type is KeyboardInterrupt else report(lost)
    try:
        return _status(_parser(), arguments, argparse.Namespace(stops=stops))
    finally:
        sys.unraisablehook = report


def _status(parser: argparse.ArgumentParser, arguments: list[str] | None, options: argparse.Namespace) -> int:
    try:
        options = parser.parse_args(arguments, options)
        options.command(options)
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:  # `jaxneuron info | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt as error:
        _fail("interrupted" + _notes(error))
        return 130
    except OSError as error:
        return _fail(
            (f"{error.filename}: {error.strerror}" if error.filename else str(error)) + _notes(error)
        )
    except (ValueError, TypeError, ImportError) as error:
        return _fail(str(error))
    except Exception as error:  # raised by JAX: no such device, out of memory, a NaN under jax_debug_nans
        return _fail(f"{type(error).__name__}: {error}")
    return 0


def _fail(message: str) -> int:
    print(f"jaxneuron: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _notes(error: BaseException) -> str:
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; see {self.prog} --help"))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jaxneuron",
        description="Evaluate artificial neurons and multilayer perceptrons.",
        epilog="The dtype is float32; set the environment variable JAX_ENABLE_X64=1 for float64.",
    )
    parser.add_argument("--version", action="version", version=f"jaxneuron {jaxneuron.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (demo, info, convert, run, plot):
        command.add_parser(commands)
    return parser
