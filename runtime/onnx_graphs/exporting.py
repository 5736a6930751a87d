"""Export a torch module of the user's to ONNX. Its file is named on the command line, so its code may run."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from controller.errors import FailureError, UsageError
from runtime.onnx_graphs.library import INSTALL, onnx_library, reason
from runtime.onnx_graphs.reading import ForeignModel, checked_model

EXPECTED = "FILE.py:FUNCTION"
_OPSET = 18  # of the exporter itself, which every supported ONNX Runtime runs


def is_module_name(text: str) -> bool:
    """Whether a text on the command line names a function in a Python file, not an ONNX file."""
    file, colon, function = text.rpartition(":")
    return bool(colon) and file.endswith(".py") and function.isidentifier()


def load_module(name: str) -> nn.Module:
    """Run the function that ``FILE.py:FUNCTION`` names and return its module; UsageError when that is not possible."""
    if not is_module_name(name):
        raise UsageError(f"got {name!r}; expected {EXPECTED}, a function that returns an nn.Module")
    file, _, function = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise UsageError(f"{path}: no such file; expected {EXPECTED}")
    try:
        make = getattr(_imported(path), function, None)
        module = make() if callable(make) else None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        raise UsageError(f"{name} failed with {type(error).__name__}: {reason(error)}") from None
    if make is None:
        raise UsageError(f"{path} has no function {function!r}")
    if not isinstance(module, nn.Module):
        raise UsageError(f"{name} gave {type(module).__name__}; expected a function that returns an nn.Module")
    return module


def export_module(name: str, channels: int, height: int, width: int) -> ForeignModel:
    """The module that ``FILE.py:FUNCTION`` returns, in evaluation mode, as a model for images (1, channels, h, w).

    UsageError when there is none or it does not take such images; FailureError when it runs but is not exported.
    """
    return export(load_module(name), name, (1, channels, height, width))


@torch.no_grad()
def export(module: nn.Module, name: str, shape: tuple[int, int, int, int]) -> ForeignModel:
    """Export a module at hand; ``name`` for messages. Errors as `export_module`."""
    onnx_library()
    module = module.eval()
    image = torch.rand(shape)
    try:
        module(image)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        raise UsageError(f"{name} does not take images {shape}: {type(error).__name__}: {reason(error)}") from None
    try:
        with _quiet():
            exported: Any = torch.onnx.export(
                module, (image,), dynamo=True, opset_version=_OPSET, verbose=False, input_names=["image"]
            )
            proto = exported.model_proto
    except ImportError as error:
        raise UsageError(f"exporting a module needs the package {error.name}; install it with {INSTALL}") from None
    except Exception as error:  # noqa: BLE001 - the exporter's errors have no common base
        raise FailureError(f"{name} cannot be exported to ONNX: {_first_line(error)}") from None
    return checked_model(proto, name)


def _imported(path: Path) -> Any:
    """The module of a Python file; what stands beside it can be imported by it, also by its functions later."""
    spec = importlib.util.spec_from_file_location(f"_given_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the module of their class
    folder = str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that a file there does not hide a library
    spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress in prints, warnings and logs; what matters comes as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(error: Exception) -> str:
    """The cause of an error of the exporter, whose own message is a page of advice."""
    cause = error
    while cause.__cause__ is not None and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0] if lines else ''}"[:300]
