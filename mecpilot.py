"""mecpilot from Python: decide, frame by frame, how an inference runs between a device and a MEC server.

    import mecpilot

    bundle = mecpilot.open_bundle("campus")                        # models, decisions, recorded answers
    controller = mecpilot.make_controller("greedy", bundle=bundle)  # what decides
    env = mecpilot.make_env(bundle)                                # the same decisions as a Gymnasium environment

A name is loaded when it is first used, so importing this module never loads torch. Where Gymnasium is installed, the
import registers ``mecpilot/Campus-v0`` and ``mecpilot/Garments-v0``. docs/python.md shows the whole API on one page.
``python -m mecpilot`` is the command line; it lives in ``runtime.cli.main``.
"""

from __future__ import annotations

import importlib
import os
import sys

TYPE_CHECKING = False  # instead of typing's: importing typing costs milliseconds before signals are handled
if TYPE_CHECKING:
    from typing import Any

    from agents.compare.own import compare
    from agents.compare.sb3 import Sb3Controller, load_agent
    from controller.controllers.base import Controller
    from controller.costs import CostTable
    from controller.errors import FailureError, MecpilotError, UsageError
    from controller.records import Decision, Outcome, Status, SystemState
    from controller.reuse import Reuse
    from controller.scenario import Scenario, ScenarioRange
    from envs.env import make_env
    from runtime.bundles.bundle import Bundle, open_bundle
    from runtime.cli.main import console as console
    from runtime.cli.main import main as main
    from runtime.config.sections.device import EmulationSection, LimitsSection
    from runtime.config.sections.security import SecuritySection
    from runtime.config.sections.shortcuts import CacheSection, FilterSection
    from runtime.device.controllers import make_controller, open_costs
    from runtime.device.device import Device
    from runtime.files.policy_file import load_policy
    from runtime.mec.records import RequestRecord
    from runtime.mec.server import MecServer
    from runtime.observe.sinks import Sink
    from runtime.shortcuts.base import Shortcut
    from runtime.version import VERSION as __version__
    from runtime.workloads.base import Workload
    from runtime.workloads.classifier import Classifier
    from runtime.workloads.registry import get_workload, register_workload

__all__ = [
    "Bundle",
    "CacheSection",
    "Classifier",
    "Controller",
    "CostTable",
    "Decision",
    "Device",
    "EmulationSection",
    "FailureError",
    "FilterSection",
    "LimitsSection",
    "MecServer",
    "MecpilotError",
    "Outcome",
    "RequestRecord",
    "Reuse",
    "Sb3Controller",
    "Scenario",
    "ScenarioRange",
    "SecuritySection",
    "Shortcut",
    "Sink",
    "Status",
    "SystemState",
    "UsageError",
    "Workload",
    "__version__",
    "compare",
    "get_workload",
    "load_agent",
    "load_policy",
    "make_controller",
    "make_env",
    "open_bundle",
    "open_costs",
    "register_workload",
]

#: Where each name is defined.
_MODULES = {
    "agents.compare.own": ("compare",),
    "agents.compare.sb3": ("Sb3Controller", "load_agent"),
    "controller.controllers.base": ("Controller",),
    "controller.costs": ("CostTable",),
    "controller.errors": ("FailureError", "MecpilotError", "UsageError"),
    "controller.records": ("Decision", "Outcome", "Status", "SystemState"),
    "controller.reuse": ("Reuse",),
    "controller.scenario": ("Scenario", "ScenarioRange"),
    "envs.env": ("make_env",),
    "runtime.bundles.bundle": ("Bundle", "open_bundle"),
    "runtime.cli.main": ("console", "main"),
    "runtime.config.sections.device": ("EmulationSection", "LimitsSection"),
    "runtime.config.sections.security": ("SecuritySection",),
    "runtime.config.sections.shortcuts": ("CacheSection", "FilterSection"),
    "runtime.device.controllers": ("make_controller", "open_costs"),
    "runtime.device.device": ("Device",),
    "runtime.files.policy_file": ("load_policy",),
    "runtime.mec.records": ("RequestRecord",),
    "runtime.mec.server": ("MecServer",),
    "runtime.observe.sinks": ("Sink",),
    "runtime.shortcuts.base": ("Shortcut",),
    "runtime.workloads.base": ("Workload",),
    "runtime.workloads.classifier": ("Classifier",),
    "runtime.workloads.registry": ("get_workload", "register_workload"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}
_PACKAGES = ("controller", "runtime", "envs", "agents")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        value = importlib.import_module("runtime.version").VERSION
    elif name in _HOME:
        value = getattr(_imported(_HOME[name], name), name)
    else:
        raise AttributeError(f"module 'mecpilot' has no attribute {name!r}")
    globals()[name] = value
    return value


def _imported(module: str, name: str) -> Any:
    """The module; UsageError when a package of the training extra is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        from controller.errors import UsageError
        from runtime.cli.main import TRAINING_PACKAGES, missing_package

        if (error.name or "").split(".")[0] not in TRAINING_PACKAGES:
            raise
        raise UsageError(missing_package(error, f"mecpilot.{name}")) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _shadowed() -> str:
    """An error text if another package hides one of mecpilot's, for example a folder ``envs`` of the user; else ""."""
    from importlib.util import find_spec

    here = os.path.dirname(os.path.realpath(__file__))
    for package in _PACKAGES:
        spec = find_spec(package)
        found = list(spec.submodule_search_locations or [str(spec.origin)]) if spec else []
        if os.path.join(here, package) not in [os.path.realpath(folder) for folder in found]:
            where = found[0] if found else "nothing"
            return (
                f"mecpilot needs its own package {package!r} in {here}, but Python finds {where}; "
                "rename that folder, or start Python in another one"
            )
    return ""


def _register_environments() -> None:
    """Register the Gymnasium ids. Without Gymnasium, the rest of mecpilot works all the same."""
    try:
        importlib.import_module("envs")
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "gymnasium":
            raise


if __name__ == "__main__":
    if _problem := _shadowed():
        sys.exit(f"mecpilot: {_problem}")
    __getattr__("console")()
elif _problem := _shadowed():
    raise ImportError(_problem)
else:
    _register_environments()
