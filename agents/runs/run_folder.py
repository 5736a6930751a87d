"""The folder of a training run: all that is needed to repeat, resume and export it.

``config.json`` (configuration, seed, traces and profile by name, revision and versions), ``tensorboard/``,
``figures/``, ``checkpoints/`` and ``held_out.json`` (how the exported weights do on traces that were held out). Only
one process at a time writes into it (``agents.runs.run_lock``), and a run is replaced only when asked
(``agents.runs.replacing``).
"""

from __future__ import annotations

import platform
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from agents.runs.checkpoint import Reached, reached
from agents.learn.ppo import PpoConfig
from agents.runs.replacing import NEW, recover, replace_entries, was_cut_off
from agents.runs.run_lock import LOCK_FILE, locked, refuse_if_locked
from agents.learn.warm_start import WarmStartConfig
from controller.errors import FailureError, MecpilotError, UsageError
from controller.scenario import ScenarioRange
from runtime.files.atomic import write_whole
from runtime.files.provenance import revision

KEPT_CHECKPOINTS = 3
#: stable-baselines3 seeds numpy's old generator, which takes no more.
MAX_SEED = 2**32 - 1
#: What belongs to a run. Whatever else lies in its folder is the user's.
_ENTRIES = ("config.json", "held_out.json", "tensorboard", "figures", "checkpoints")
_PACKAGES = ("mecpilot", "stable-baselines3", "gymnasium", "torch", "numpy")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training depends on."""

    workload: str
    steps: int  # frames decided, over all environments
    seed: int
    traces: tuple[str, ...] = ()  # files and folders; empty: the built-in training traces
    continues: str = ""  # the policy that it started from, by file name and digest; empty: the greedy rule
    bundle: str = ""  # directory of the bundle; empty: the one that ships for the workload
    no_raw_upload: bool = False  # whether decisions that send an image were left out
    environments: int = 64
    threads: int = 1  # of torch: the networks are so small that a second thread costs more than it brings
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
        """The best weights by held-out utility, of a training that continues a policy."""
        return self.root / "checkpoints" / "best.safetensors"

    def checkpoint_at(self, steps: int) -> Path:
        return self.root / "checkpoints" / f"step_{steps:09d}.safetensors"

    def forget_old_checkpoints(self) -> None:
        for path in self.checkpoints[:-KEPT_CHECKPOINTS]:
            path.unlink()

    def latest_checkpoint(self) -> Path:
        """Where the training goes on."""
        if not self.checkpoints:
            raise self._no_checkpoint() if self._holds_run() else self._no_run()
        return self.checkpoints[-1]

    def exported_checkpoint(self) -> Path:
        """What a policy file is made of."""
        return self.best_checkpoint if self.best_checkpoint.is_file() else self.latest_checkpoint()

    def reached(self) -> Reached:
        """How far the run is."""
        found = reached(self.latest_checkpoint())
        return found if found.goal else replace(found, goal=self.config().steps)

    def lock(self) -> AbstractContextManager[None]:
        """Keep other trainings out for the time of a block."""
        return locked(self.root)

    def refuse_if_used(self) -> None:
        """UsageError when another process trains here. Changes nothing, but for a replacement that was cut off."""
        refuse_if_locked(self.root)
        self.recover()

    def refuse_what_is_there(self, overwrite: bool) -> None:
        """UsageError unless a new run may begin here."""
        try:
            there = self.root.exists() and any(entry.name != LOCK_FILE for entry in self.root.iterdir())
        except OSError as error:
            raise UsageError(f"--out {self.root}: {error.strerror}; expected a folder, or none yet") from None
        if there and not self._holds_run():
            raise UsageError(f"{self.root} exists and is not a training run; choose another --out")
        if there and not overwrite:
            resume = "go on with it with --resume, " if self.checkpoints else ""
            raise UsageError(
                f"{self.root} holds {self._told()}; replace it with --overwrite, {resume}or choose another --out"
            )

    def start(self, config: TrainingConfig, facts: dict[str, Any], first_checkpoint: bytes) -> None:
        """Begin a run with its first checkpoint, in the place of the one that is there. The caller holds the lock."""
        new = RunFolder(self.root / NEW)
        try:
            recover(self.root, _ENTRIES)
            write_whole(new.checkpoint_at(0), first_checkpoint, make_folder=True)
            new._write(new.config_file, {**config.as_json(), **facts, "made_with": _made_with()})
            replace_entries(self.root, _ENTRIES)
        except OSError as error:
            raise FailureError(f"cannot make the run folder {self.root}: {error.strerror}") from error

    def recover(self) -> None:
        """Put a run back whose replacement was cut off, unless it still goes on."""
        if was_cut_off(self.root):
            with suppress(MecpilotError, OSError), self.lock():
                recover(self.root, _ENTRIES)

    def _holds_run(self) -> bool:
        try:
            self.config()
        except UsageError:
            return False
        return "made_with" in self.description()

    def _told(self) -> str:
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
        """The configuration that the run was started with."""
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
        """Held-out figures of the last weights; empty when there are none yet."""
        return self._read(self.held_out_file) if self.held_out_file.is_file() else {}

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
