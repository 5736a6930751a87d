"""The command line: runs one sub-command and turns every end of it into an exit code and at most one line.

Sub-commands are imported when they are called, so ``mecpilot device`` never loads the training stack. An error is one
line on stderr. The exit code is 2 for a wrong request, 1 for a failure, 70 for a bug. Closed, full and abandoned
standard streams never cause a traceback. ``MECPILOT_DEBUG=1`` prints the traceback of every error that is not the
user's.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import sys
import threading

from runtime.cli import signals
from runtime.version import VERSION

TYPE_CHECKING = False  # instead of typing's: importing typing costs milliseconds before signals are handled
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

#: name -> (module, attribute, one line of help). The attribute is a typer function or a typer app.
COMMANDS = {
    "models": ("runtime.cli.models", "app", "list, train and show the models of a bundle"),
    "adopt": ("runtime.cli.adopt", "adopt", "make a bundle of a foreign model and footage"),
    "profile": ("runtime.cli.profile", "profile", "measure segments here, fit regressions"),
    "train": ("agents.cli.train", "train", "train a PPO policy on the twin (or --live)"),
    "export": ("agents.cli.train", "export", "freeze a trained policy into one file"),
    "tune": ("agents.cli.tune", "tune", "tune every classical controller on training traces"),
    "evaluate": ("agents.cli.evaluate", "evaluate", "compare controllers on the twin or --live"),
    "keys": ("runtime.cli.keys", "app", "make keys, and say which devices a MEC admits"),
    "lab": ("agents.cli.lab", "lab", "devices and a MEC in network namespaces (root)"),
    "config": ("runtime.cli.config", "app", "print the configuration file, or check one"),
    "mec": ("runtime.cli.mec", "mec", "serve tail segments"),
    "deploy": ("runtime.cli.deploy", "app", "make the keys that releases are signed with"),
    "push": ("runtime.cli.deploy", "push", "bring a bundle or a policy to a MEC"),
    "status": ("runtime.cli.deploy", "status", "what a MEC serves, and to whom"),
    "rollback": ("runtime.cli.deploy", "rollback", "go back to the release before"),
    "fetch": ("runtime.cli.deploy", "fetch", "take over what is deployed on a MEC"),
    "device": ("runtime.cli.device", "device", "answer frames, deciding each one"),
    "soak": ("runtime.cli.soak", "soak", "run devices and MECs under faults, account for every frame"),
}
OUR_PACKAGES = ("controller", "runtime", "envs", "agents")
TRAINING_PACKAGES = ("gymnasium", "stable_baselines3", "tensorboard", "matplotlib")
DEPLOY_PACKAGES = ("tuf", "securesystemslib", "cryptography")
BUG = 70  # EX_SOFTWARE of sysexits.h


class _ReaderGone(Exception):
    """The reader of standard output closed the pipe. Not an OSError, because typer handles those itself."""


def _help() -> str:
    rows = "\n".join(f"  {name:<10}{text}" for name, (_, _, text) in COMMANDS.items())
    return (
        "mecpilot: decides, frame by frame, how each inference runs between a device and a MEC\n\n"
        f"usage: mecpilot COMMAND [OPTIONS]\n\n{rows}\n\n"
        "`mecpilot COMMAND --help` lists the options of a command; `mecpilot --version` prints the version."
    )


def _load(name: str) -> Any:
    """Import a sub-command and return its click command."""
    import typer

    module_name, attribute, _ = COMMANDS[name]
    target = getattr(importlib.import_module(module_name), attribute)
    if isinstance(target, typer.Typer):
        for info in target.registered_commands:
            info.callback = _checked(info.callback)
        return _with_plain_switches(typer.main.get_command(target))
    app = typer.Typer(add_completion=False)
    app.command(name)(_checked(target))
    return _with_plain_switches(typer.main.get_command(app))


def _with_plain_switches(command: Any) -> Any:
    """The command, with help that shows no type beside a switch."""
    for one in (command, *getattr(command, "commands", {}).values()):
        for option in (*one.params, one.get_help_option(one.make_context(None, [], resilient_parsing=True))):
            if getattr(option, "is_flag", False):
                option.metavar = ""
    return command


def _checked(command: Any) -> Callable[..., Any]:
    """Wrap a command so that its numbers are checked before it runs."""
    from runtime.cli.option_checks import check_numbers

    original = getattr(command, "__mecpilot_command__", command)

    @functools.wraps(original)
    def checked(**options: Any) -> Any:
        check_numbers(options)
        try:
            return original(**options)
        except BrokenPipeError as error:
            raise _ReaderGone from error

    checked.__mecpilot_command__ = original  # type: ignore[attr-defined]
    return checked


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-v", "-V", "--version", "version"):
        print(f"mecpilot {VERSION}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        return _complain(_unknown(name), 2)
    # numpy's products are small here: further threads of OpenBLAS wait busily, and take the cores from other work.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return _run(name, rest)


def _unknown(name: str) -> str:
    import difflib

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; expected one of: {', '.join(COMMANDS)}"
    return f"unknown command {name!r}{hint}"


def _run(name: str, arguments: list[str]) -> int:
    from runtime.cli.option_checks import check_arguments

    try:
        check_arguments(arguments)
        result = _load(name).main(arguments, prog_name=f"mecpilot {name}", standalone_mode=False)
    except (_ReaderGone, BrokenPipeError):
        return 0  # `mecpilot ... | head`
    except KeyboardInterrupt:
        result = 130
    except Exception as error:  # noqa: BLE001 - the outermost border: every error ends as one line
        return _end_of(error, name)
    if result == 130:  # how typer returns Ctrl-C
        return _complain("interrupted", 130)
    return result if isinstance(result, int) else 0


def _end_of(error: Exception, name: str) -> int:
    """Print one line for an exception and return the exit code."""
    from typer.exceptions import Abort, Exit, TyperException

    from controller.errors import MecpilotError
    from runtime.cli.option_checks import number_refusal

    if isinstance(error, MecpilotError):
        return _complain(str(error), error.exit_code)
    if isinstance(error, TyperException):
        text = number_refusal(error) or error.format_message().strip() or "a command is missing"
        return _complain(f"{text.rstrip('.')}; see `mecpilot {name} --help`", error.exit_code)
    if isinstance(error, Exit):
        return error.exit_code
    if isinstance(error, Abort):
        return _complain("interrupted", 130)
    if os.environ.get("MECPILOT_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if text := _machine_fault(error, name):
        return _complain(text, 1)
    return _complain(_bug(error), BUG)


def _machine_fault(error: Exception, name: str) -> str:
    """Text for a fault of the machine or of its installation; "" if the error is a bug in mecpilot."""
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] not in OUR_PACKAGES:
        return missing_package(error, name)
    if isinstance(error, ImportError) and "shared object" in str(error):
        return f"{name} cannot load a library ({error}); expected enough memory, and packages that are whole"
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output failed'}: {error.strerror or error}"
    if isinstance(error, MemoryError) or "allocate memory" in str(error) or "Insufficient memory" in str(error):
        return f"{name} needs more memory than there is; use smaller numbers, or a larger machine"
    if isinstance(error, RecursionError):
        return "the input is nested too deeply"
    if isinstance(error, UnicodeError):
        return f"text that cannot be encoded or decoded ({error}); set LC_ALL=C.UTF-8, or check the input"
    return ""


def missing_package(error: ModuleNotFoundError, what: str) -> str:
    """Text for a package that ``what`` needs and that is not installed. Another project may have our name on PyPI, so
    the text names the checkout."""
    package = (error.name or "").split(".")[0]
    extra = "[train]" if package in TRAINING_PACKAGES else "[deploy]" if package in DEPLOY_PACKAGES else ""
    return f"{what} needs the package {package}; run: pip install 'PATH_OF_THE_CHECKOUT{extra}'"


def _bug(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
    return (
        f"a bug in mecpilot: {type(error).__name__}: {error}{where}; please report it with the traceback, "
        "which the same command prints with MECPILOT_DEBUG=1"
    )


def _complain(text: str, exit_code: int) -> int:
    if sys.stderr is not None:
        try:
            print(f"mecpilot: {' '.join(text.split())}", file=sys.stderr, flush=True)
        except OSError:
            _discard(sys.stderr)
    return exit_code


def _open_missing_streams() -> None:
    """Replace a closed stdin, stdout or stderr by /dev/null. Otherwise the next file that is opened gets its number,
    and a library that prints would write into that file."""
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # LC_ALL=C, or a file name that is not valid text


def _flush(exit_code: int) -> int:
    """Flush now: an error in the interpreter's own flush would print a traceback."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        _discard(sys.stdout)
        exit_code = _complain(f"cannot write standard output: {error.strerror}", exit_code or 1)
    try:
        sys.stderr.flush()
    except OSError:
        _discard(sys.stderr)
    return exit_code


def _discard(stream: Any) -> None:
    """Send what is buffered, and everything written later, to /dev/null."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


def _thread_failed(failed: Any) -> None:
    if os.environ.get("MECPILOT_DEBUG"):
        threading.__excepthook__(failed)
    if isinstance(failed.exc_value, Exception):
        _complain(_bug(failed.exc_value), BUG)


def console() -> None:
    """Entry point of the console script."""
    signals.end_on_signals()
    threading.excepthook = _thread_failed
    _open_missing_streams()
    exit_code = 1
    try:
        exit_code = main()
    except BrokenPipeError:
        exit_code = 0
    except OSError as error:  # what `--help` prints, with PYTHONUNBUFFERED=1, on a full disk
        _discard(sys.stdout)
        exit_code = _complain(f"cannot write standard output: {error.strerror}", 1)
    except KeyboardInterrupt:
        exit_code = _complain("interrupted", 130)
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else 1
    signals.exit_at_once_on_signals(exit_code)
    exit_code = _flush(exit_code)
    if any(thread.name == "source" for thread in threading.enumerate()):
        os._exit(exit_code)  # a source thread that hangs in a library would abort the interpreter at exit
    sys.exit(exit_code)
