"""The front door: which sub-command was asked for, and how does its end reach the user?

Sub-commands are imported when they are called, so that ``mecpilot device`` never loads the training stack. Errors
are one line on stderr: exit code 2 for what the user asked, 1 for what failed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

#: name -> (module, attribute, one line of help). The attribute is a typer function or a typer app.
COMMANDS = {
    "models": ("runtime.models.commands", "app", "list, train and show the models of a bundle"),
    "profile": ("runtime.profile_commands", "profile", "measure segments here, fit regressions"),
    "train": ("agents.train_commands", "train", "train a PPO policy on the twin (or --live)"),
    "export": ("agents.train_commands", "export", "freeze a trained policy into one file"),
    "tune": ("agents.commands", "tune", "tune every classical controller on training traces"),
    "evaluate": ("agents.commands", "evaluate", "compare controllers on the twin or --live"),
    "mec": ("runtime.commands", "mec", "serve tail segments"),
    "device": ("runtime.commands", "device", "answer frames, deciding each one"),
}
VERSION = "0.1.0"


def _help() -> str:
    rows = "\n".join(f"  {name:<10}{text}" for name, (_, _, text) in COMMANDS.items())
    return (
        "mecpilot: decides, frame by frame, how each inference runs between a device and a MEC\n\n"
        f"usage: mecpilot COMMAND [OPTIONS]\n\n{rows}\n\n"
        "`mecpilot COMMAND --help` tells the options; `mecpilot --version` the version."
    )


def _load(name: str) -> Any:
    """The click command behind a sub-command."""
    import typer

    module_name, attribute, _ = COMMANDS[name]
    target = getattr(importlib.import_module(module_name), attribute)
    if isinstance(target, typer.Typer):
        return typer.main.get_command(target)
    app = typer.Typer(add_completion=False)
    app.command(name)(target)
    return typer.main.get_command(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"mecpilot {VERSION}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        return _complain(f"unknown command {name!r}; expected one of: {', '.join(COMMANDS)}", 2)
    return _run(name, rest)


def _run(name: str, arguments: list[str]) -> int:
    from typer.exceptions import Abort, Exit, TyperException

    from controller.errors import MecpilotError

    try:
        result = _load(name).main(arguments, prog_name=f"mecpilot {name}", standalone_mode=False)
    except MecpilotError as error:
        return _complain(str(error), error.exit_code)
    except TyperException as error:
        text = error.format_message().strip() or "a command is missing"
        return _complain(f"{text.rstrip('.')}; see `mecpilot {name} --help`", error.exit_code)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in (
            "gymnasium",
            "stable_baselines3",
            "tensorboard",
            "matplotlib",
        ):
            raise
        return _complain(f"{name} needs the package {error.name}; run: pip install 'mecpilot[train]'", 1)
    except Exit as stop:
        return stop.exit_code
    except (Abort, KeyboardInterrupt):
        return _complain("interrupted", 130)
    except BrokenPipeError:
        # The reader of our stdout went away (`mecpilot ... | head`): nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


def _complain(text: str, exit_code: int) -> int:
    print(f"mecpilot: {' '.join(text.split())}", file=sys.stderr)
    return exit_code


def console() -> None:
    """Entry point of the console script."""
    # An exception, so that every ``finally`` is run: processes that a command has started end with it.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        code: object = main()
    except SystemExit as stop:
        code = stop.code
    _leave(code if isinstance(code, int) else int(code is not None))


def _leave(code: int) -> None:
    """End the process. A reader of a source that hangs in a library would abort it by coming back in between."""
    if any(thread.name == "source" for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    console()
