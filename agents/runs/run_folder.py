"""The folder of a training run: holds everything to repeat, resume and export it.

``config.json`` (configuration, seed, names of traces and profile, revision and versions), ``tensorboard/``,
``figures/``, ``checkpoints/``, ``held_out.json`` (figures of the exported weights on held-out traces) and
``ranges.json`` (what the policy saw on the training traces). One process at a time writes into it
(``agents.runs.run_lock``), and a run is replaced only on request (``agents.runs.replacing``). Nothing here loads
torch: a folder that cannot be used is refused at once.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from agents.learn.config import PpoConfig, WarmStartConfig
from agents.runs.progress import Reached, reached
from agents.runs.replacing import NEW, recover, replace_entries, was_cut_off
from agents.runs.run_lock import LOCK_FILE, SEVERAL, locked, refuse_if_locked
from controller.errors import FailureError, MecpilotError, UsageError
from controller.guard.ranges import NO_RANGES, Ranges
from controller.scenario import ScenarioRange
from envs.techniques import Techniques
from runtime.files.atomic import write_whole
from runtime.files.provenance import revision

KEPT_CHECKPOINTS = 3
#: stable-baselines3 seeds numpy's legacy generator, which accepts no larger number.
MAX_SEED = 2**32 - 1
#: Files and folders of a run. Anything else in its folder belongs to the user.
_ENTRIES = ("config.json", "held_out.json", "ranges.json", "tensorboard", "figures", "checkpoints")
_SEED_NAME = re.compile(r"seed-\d+")
_PACKAGES = ("mecpilot", "stable-baselines3", "gymnasium", "torch", "numpy")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training depends on."""

    workload: str
    steps: int  # frames decided, over all environments
    seed: int
    traces: tuple[str, ...] = ()  # files and folders; empty: the built-in training traces
    continues: str = ""  # file name and digest of the policy that it started from; empty: ``expected-utility``
    bundle: str = ""  # directory of the bundle; empty: the one shipped for the workload
    no_raw_upload: bool = False  # whether decisions that send an image were left out
    without: str = ""  # kind of decision that was left out; empty: none
    techniques: Techniques = field(default_factory=Techniques)  # switched on beside the decisions
    environments: int = 64
    threads: int = 1  # of torch; the networks are too small to gain from a second one
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    scenario: ScenarioRange = field(default_factory=ScenarioRange)

    def __post_init__(self) -> None:
        for name in ("steps", "environments", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"training {name}: got {getattr(self, name)}; expected at least 1")
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"training seed: got {self.seed}; expected 0 to {MAX_SEED}")

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run."""

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.json"

    @property
    def held_out_file(self) -> Path:
        return self.root / "held_out.json"

    @property
    def ranges_file(self) -> Path:
        return self.root / "ranges.json"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted((self.root / "checkpoints").glob("step_*.safetensors"))

    @property
    def best_checkpoint(self) -> Path:
        """File of the best weights by held-out utility; exists if the training continues a policy."""
        return self.root / "checkpoints" / "best.safetensors"

    def checkpoint_at(self, steps: int) -> Path:
        return self.root / "checkpoints" / f"step_{steps:09d}.safetensors"

    def forget_old_checkpoints(self) -> None:
        for path in self.checkpoints[:-KEPT_CHECKPOINTS]:
            path.unlink()

    def latest_checkpoint(self) -> Path:
        """File to resume from. UsageError if there is none."""
        if not self.checkpoints:
            raise self._no_checkpoint() if self._holds_run() else self._no_run()
        return self.checkpoints[-1]

    def exported_checkpoint(self) -> Path:
        """File to export: the best checkpoint if there is one, else the latest. UsageError if there is none."""
        return self.best_checkpoint if self.best_checkpoint.is_file() else self.latest_checkpoint()

    def reached(self) -> Reached:
        """Progress of the run. UsageError if it has no readable checkpoint."""
        found = reached(self.latest_checkpoint())
        return found if found.goal else replace(found, goal=self.config().steps)

    def lock(self) -> AbstractContextManager[None]:
        """A context manager that keeps other trainings out. UsageError if the folder is in use."""
        return locked(self.root)

    def check(self, *, resume: bool, overwrite: bool) -> None:
        """UsageError if the folder is in use, or holds something that must not be replaced or cannot be resumed."""
        self.refuse_if_used()
        self.refuse_if_among_seeds()
        if resume:
            self.reached()
        else:
            self.refuse_existing(overwrite)

    def refuse_if_used(self) -> None:
        """UsageError if another process trains here. Cleans up after an interrupted replacement."""
        refuse_if_locked(self.root)
        self.recover()

    def refuse_if_among_seeds(self) -> None:
        """UsageError if this is a seed's folder below one in which another process trains several seeds."""
        root = self.root.resolve()
        if _SEED_NAME.fullmatch(root.name):
            refuse_if_locked(root.parent, SEVERAL)

    def refuse_existing(self, overwrite: bool, resumable: bool = True) -> None:
        """UsageError if the folder holds something that a new run must not replace."""
        try:
            is_used = self.root.exists() and any(entry.name != LOCK_FILE for entry in self.root.iterdir())
        except OSError as error:
            raise UsageError(f"--out {self.root}: {error.strerror}; expected a folder, or a new path") from None
        if is_used and not self._holds_run():
            raise UsageError(f"{self.root} exists and is not a training run; choose another --out")
        if is_used and not overwrite:
            resume = "continue it with --resume, " if resumable and self.checkpoints else ""
            raise UsageError(
                f"{self.root} holds {self._summary()}; replace it with --overwrite, {resume}or choose another --out"
            )

    def start(self, config: TrainingConfig, facts: dict[str, Any], first_checkpoint: bytes) -> None:
        """Create a run with its first checkpoint; replaces the run in the folder, if any. The caller holds the lock.

        FailureError if the folder cannot be written.
        """
        with self._replacing() as new:
            write_whole(new.checkpoint_at(0), first_checkpoint, make_folder=True)
            new._write(new.config_file, {**config.as_json(), **facts, "made_with": _made_with()})

    def files(self) -> dict[str, bytes]:
        """The content of all files of the run, by their path in the folder."""
        paths = [path for entry in _ENTRIES for path in (self.root / entry, *(self.root / entry).rglob("*"))]
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths if path.is_file()}

    def take(self, files: Mapping[str, bytes], facts: dict[str, Any]) -> None:
        """Put the files of a run that was made elsewhere into the folder, and add facts to its description; replaces
        the run in the folder, if any. FailureError if the folder cannot be written."""
        with self.lock(), self._replacing() as new:
            for name, data in files.items():
                write_whole(new.root / name, data, make_folder=True)
            new._write(new.config_file, {**new.description(), **facts})

    @contextmanager
    def _replacing(self) -> Iterator[RunFolder]:
        """Where to write a run that then takes the place of the one in the folder. The caller holds the lock.

        FailureError if the folder cannot be written.
        """
        try:
            recover(self.root, _ENTRIES)
            yield RunFolder(self.root / NEW)
            replace_entries(self.root, _ENTRIES)
        except OSError as error:
            raise FailureError(f"cannot make the run folder {self.root}: {error.strerror}") from error

    def recover(self) -> None:
        """Restore a run whose replacement was interrupted, unless another process is still replacing it."""
        if was_cut_off(self.root):
            with suppress(MecpilotError, OSError), self.lock():
                recover(self.root, _ENTRIES)

    def _holds_run(self) -> bool:
        try:
            self.config()
        except UsageError:
            return False
        return "made_with" in self.description()

    def _summary(self) -> str:
        try:
            found = self.reached()
        except UsageError:
            return "a training run without a readable checkpoint"
        workload = self.config().workload
        if found.finished:
            return f"a finished training run of {workload} ({found.steps} steps)"
        return f"an interrupted training run of {workload} ({found.steps} of {found.goal} steps)"

    def _no_checkpoint(self) -> UsageError:
        return UsageError(f"{self.root} holds a training run without a checkpoint; start it again with --overwrite")

    def _no_run(self) -> UsageError:
        return UsageError(f"{self.root} holds no training run; make one with `mecpilot train --out {self.root}`")

    def config(self) -> TrainingConfig:
        """The configuration that the run was started with. UsageError if there is no run."""
        self.recover()
        if not self.config_file.is_file():
            raise self._no_run()
        try:
            return msgspec.convert(self._read(self.config_file), TrainingConfig)
        except msgspec.ValidationError as error:
            raise UsageError(f"{self.config_file} is not a training's configuration ({error}); train again") from None

    def description(self) -> dict[str, Any]:
        """The configuration as stored, versions and revision included."""
        return self._read(self.config_file)

    def write_held_out(self, figures: dict[str, Any]) -> None:
        self._write(self.held_out_file, figures)

    def held_out(self) -> dict[str, Any]:
        """Held-out figures of the exported weights; empty before the first evaluation."""
        return self._read(self.held_out_file) if self.held_out_file.is_file() else {}

    def write_ranges(self, ranges: Ranges) -> None:
        self._write(self.ranges_file, dict(ranges))

    def ranges(self) -> Ranges:
        """The ranges of the context features in training; empty if the run has not ended."""
        return self._read(self.ranges_file) if self.ranges_file.is_file() else NO_RANGES

    def _write(self, path: Path, values: dict[str, Any]) -> None:
        write_whole(path, msgspec.json.format(msgspec.json.encode(values), indent=1) + b"\n", make_folder=True)

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.MsgspecError) as error:
            raise UsageError(f"{path} cannot be read ({error}); train again") from error


def _made_with() -> dict[str, str]:
    versions = {name: version(name) for name in _PACKAGES}
    return {"revision": revision(), "python": platform.python_version(), **versions}
