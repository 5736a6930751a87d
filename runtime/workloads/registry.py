"""The registry of workloads: shipped ones, registered ones, plug-ins, adopted ones, and references to a class.

``get_workload`` takes a name, the folder of an adopted bundle, or a reference ``package.module:Class``. A name may be
that of a shipped workload, of one registered with ``register_workload``, of an entry point in group
``mecpilot.workloads``, or of a folder or reference that this process has resolved. For a name from a file (a bundle, a
run) use ``workload_named``, which refuses references and folders: a file must not decide what is opened or imported.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from controller.errors import MecpilotError, UsageError
from runtime.files.fetch import check_data_dir
from runtime.plug_ins import PlugIns, in_a_line, warn
from runtime.workloads.base import Workload

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: A class, or a function that takes the directory given with --data; it is called without arguments if none is given.
Factory = Callable[..., Workload]

GROUP = "mecpilot.workloads"
SHIPPED = {
    "campus": "runtime.workloads.campus.workload:Campus",
    "garments": "runtime.workloads.garments.workload:Garments",
}
WORKLOADS = tuple(SHIPPED)  # only the shipped ones; `workload_names` returns all
#: A folder with this file is an adopted bundle; see `runtime.workloads.adopted.description`.
ADOPTION_FILE = "adoption.json"
_NAME = re.compile(r"[\w.-]{1,64}")
_REQUIRED = ("name", "resolutions_px", "families")


class Registry:
    """Owns the factories of one process. Entry points are read only for names that are not known otherwise."""

    def __init__(
        self,
        shipped: dict[str, str],
        installed: Callable[[], Iterable[EntryPoint]] | None = None,
        warn: Callable[[str], None] = warn,
    ) -> None:
        self._shipped = shipped
        self._plug_ins = PlugIns(GROUP, "workload", installed, warn)
        self._warn = warn
        self._registered: dict[str, Factory] = {}
        self._referenced: dict[str, str] = {}  # name -> the reference that was resolved to it
        self._adopted: dict[str, dict[str, Path]] = {}  # name -> folder of each description that was resolved to it

    def register(self, name: str, factory: Factory) -> None:
        """Register a factory. UsageError when another factory has the name, or the name is malformed."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"got the workload name {name!r}; expected up to 64 letters, digits, '.', '-' or '_'")
        if name in self._shipped or self._registered.get(name, factory) is not factory:
            raise UsageError(f"the workload name {name!r} is taken; choose another one")
        self._registered[name] = factory

    def get(self, name: str, data_dir: Path | None = None) -> Workload:
        """The workload with that name, folder or reference ``package.module:Class``. UsageError when there is none."""
        if is_adopted(name):
            return self.adopted(Path(name), data_dir)
        if ":" not in name:
            self._plug_ins.warn_if_unused((*self._shipped, *self._registered))
            return self.named(name, data_dir)
        work = _made(name, _loaded(name), data_dir)
        self._referenced.setdefault(work.name, name)
        return work

    def adopted(self, folder: Path, data: Path | None = None) -> Workload:
        """The workload of the adopted bundle in a folder; ``data``: its footage or where that is.

        FailureError when the description is damaged, UsageError when it has the name of a shipped workload.
        """
        from runtime.workloads.adopted.workload import read_adopted

        work = read_adopted(folder, data)
        if work.name in self._shipped or work.name in self._registered:
            raise UsageError(f"the adopted bundle {folder} has the name {work.name!r}, which is taken; adopt it anew")
        self._adopted.setdefault(work.name, {}).setdefault(work.description_sha256, folder.resolve())
        return work

    def named(self, name: str, data_dir: Path | None = None) -> Workload:
        """The workload with that name; UsageError for an unknown name, with the most similar one as a hint."""
        if name in self._adopted and not self._is_other(name):
            return self.adopted(self._only_folder(name), data_dir)
        work = _made(name, self._factory(name), data_dir)
        if work.name != name:  # a bundle stores the name of the workload and could not find it again
            raise UsageError(f"the workload registered as {name!r} has the name {work.name!r}; expected equal names")
        return work

    def knows(self, name: str) -> bool:
        """Whether ``named`` would find the name."""
        known = self._shipped | self._registered | self._referenced | self._adopted
        return name in known or is_adopted(name) or name in self._plug_in_names()

    def check(self, name: str) -> None:
        """UsageError for an unknown name. A reference is not imported and may be anything."""
        if ":" not in name and not self.knows(name):
            if os.path.isdir(name):
                raise UsageError(f"the folder {name} has no {ADOPTION_FILE}; expected an adopted bundle, or a name")
            raise self._unknown(name)

    def check_free(self, name: str) -> None:
        """UsageError when a workload that is no adopted bundle has the name."""
        if self._is_other(name) or name in self._plug_in_names():
            raise UsageError(f"the name {name!r} is that of another workload; choose another one")

    def reference(self, name: str) -> str:
        """The value of --workload with which another process finds this workload."""
        if name in self._adopted and not self._is_other(name):
            return str(self._only_folder(name))
        return name if name in self._shipped else self._referenced.get(name, name)

    def _is_other(self, name: str) -> bool:
        return name in self._shipped or name in self._registered

    def _only_folder(self, name: str) -> Path:
        folders = list(self._adopted[name].values())
        if len(folders) > 1:
            shown = " and ".join(map(str, folders[:2]))
            raise UsageError(f"two adopted bundles have the name {name!r}: {shown}; name the folder that is meant")
        return folders[0]

    def names(self) -> tuple[str, ...]:
        """All known names in alphabetical order. A plug-in that cannot be imported is left out with a warning."""
        found = set(self._shipped) | set(self._registered) | set(self._referenced) | set(self._adopted)
        for name in self._plug_in_names():
            if name in found:
                continue
            try:
                self._plug_ins.load(name)
            except MecpilotError as error:
                self._warn(f"{error}; it is left out")
            else:
                found.add(name)
        return tuple(sorted(found))

    def _factory(self, name: str) -> Factory:
        if name in self._registered:
            return self._registered[name]
        if reference := self._shipped.get(name):
            return _loaded(reference)
        if _NAME.fullmatch(name) and (factory := self._plug_ins.load(name)):
            return cast(Factory, factory)
        if reference := self._referenced.get(name):
            return _loaded(reference)
        raise self._unknown(name)

    def _plug_in_names(self) -> list[str]:
        return [name for name in self._plug_ins.names() if _NAME.fullmatch(name)]

    def _unknown(self, name: str) -> UsageError:
        known = self.names()
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return UsageError(
            f"unknown workload {name!r}{hint}; expected one of: {', '.join(known)}, or package.module:Class, or the "
            "folder of an adopted bundle"
        )


def is_adopted(name: str | Path) -> bool:
    """Whether this is the folder of an adopted bundle."""
    return "\0" not in str(name) and os.path.isfile(Path(name) / ADOPTION_FILE)


def _loaded(reference: str) -> Factory:
    """The class or function of a reference; UsageError when it cannot be imported.

    The current directory is the last entry of the search path.
    """
    module, _, attribute = reference.partition(":")
    if not module or not attribute:
        raise UsageError(f"got the workload {reference!r}; expected a name or package.module:Class")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # noqa: BLE001 - any error of the user's module is reported in one line
        why = _missing_file(error, module) or in_a_line(error)
        raise UsageError(f"the workload {reference!r} cannot be imported: {why}") from None
    return cast(Factory, found)


def _missing_file(error: Exception, module: str) -> str:
    """Text for a module that does not exist; "" for any other error, also of a module that it imports."""
    if not isinstance(error, ModuleNotFoundError) or not f"{module}.".startswith(f"{error.name}."):
        return ""
    return f"no file {module.replace('.', '/')}.py in the current folder, and no installed module {module}"


def _made(name: str, factory: Factory, data_dir: Path | None) -> Workload:
    """Call a factory and check the workload: UsageError when it lacks a required attribute."""
    try:
        work = factory() if data_dir is None else factory(data_dir)
    except MecpilotError:
        raise
    except Exception as error:  # noqa: BLE001 - the user's class may raise anything
        raise UsageError(f"the workload {name!r} cannot be created: {in_a_line(error)}") from None
    missing = [member for member in _REQUIRED if not hasattr(work, member)]
    if missing:
        raise UsageError(f"the workload {name!r} has no {', '.join(missing)}; see docs/extending.md")
    if not _NAME.fullmatch(work.name):
        raise UsageError(f"the workload {name!r} has the name {work.name!r}; expected letters, digits, '.', '-' or '_'")
    check_data_dir(data_dir, work.data_files, work.name)
    return work


_registry = Registry(SHIPPED)


def register_workload(name: str, factory: Factory) -> None:
    """Register your own workload in this process, for ``get_workload`` and for every bundle that states its name.

    UsageError when the name is taken or malformed. An installed package declares an entry point of group
    ``mecpilot.workloads`` instead.
    """
    _registry.register(name, factory)


def get_workload(name: str, data_dir: Path | None = None) -> Workload:
    """The workload with that name, folder or reference ``package.module:Class``; its data is loaded on first use.

    UsageError when there is no such workload.
    """
    return _registry.get(name, data_dir)


def adopted_workload(folder: Path, data: Path | None = None) -> Workload:
    """The workload of the adopted bundle in a folder; ``data``: its footage or the folder that holds it."""
    return _registry.adopted(folder, data)


def workload_name(name: str) -> str:
    """The name of a workload that is given by name, folder or reference ``package.module:Class``."""
    return get_workload(name).name if ":" in name or is_adopted(name) else name


def workload_named(name: str, data_dir: Path | None = None) -> Workload:
    """The workload with a name that a file states. References are refused; UsageError for an unknown name."""
    return _registry.named(name, data_dir)


def workload_names() -> tuple[str, ...]:
    """All names that ``get_workload`` accepts in this process."""
    return _registry.names()


def is_workload(name: str) -> bool:
    """Whether a workload of that name is known, without importing it."""
    return _registry.knows(name)


def check_workload_name(name: str) -> None:
    """UsageError for an unknown name. A reference is not imported and may be anything."""
    _registry.check(name)


def check_free_name(name: str) -> None:
    """UsageError when an adopted bundle cannot have the name, because a shipped or installed workload has it."""
    _registry.check_free(name)


def workload_reference(name: str) -> str:
    """The value of --workload with which another process finds the workload with this name."""
    return _registry.reference(name)
