"""What does a training run leave behind? One folder with all that is needed to repeat, resume and export it.

``config.json`` (configuration, seed, revision and versions), ``tensorboard/``, ``checkpoints/`` and ``held_out.json``
(how the last weights do on traces that were held out).
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from agents.ppo import PpoConfig
from agents.warm_start import WarmStartConfig
from controller.errors import FailureError, UsageError
from controller.scenario import ScenarioRange
from runtime.provenance import revision

KEPT_CHECKPOINTS = 3
_PACKAGES = ("mecpilot", "stable-baselines3", "gymnasium", "torch", "numpy")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a training depends on."""

    workload: str
    steps: int  # frames decided, over all environments
    seed: int
    traces: tuple[str, ...] = ()  # files and folders; empty: the built-in training traces
    environments: int = 64
    threads: int = 1  # of torch: the networks are so small that a second thread costs more than it brings
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    ppo: PpoConfig = field(default_factory=PpoConfig)
    scenario: ScenarioRange = field(default_factory=ScenarioRange)

    def __post_init__(self) -> None:
        for name in ("steps", "environments", "threads"):
            if getattr(self, name) < 1:
                raise UsageError(f"training {name}: got {getattr(self, name)}; expected at least 1")

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
    def checkpoints(self) -> list[Path]:
        """Oldest first."""
        return sorted((self.root / "checkpoints").glob("step_*.safetensors"))

    def checkpoint_at(self, steps: int) -> Path:
        return self.root / "checkpoints" / f"step_{steps:09d}.safetensors"

    def forget_old_checkpoints(self) -> None:
        for path in self.checkpoints[:-KEPT_CHECKPOINTS]:
            path.unlink()

    def latest_checkpoint(self) -> Path:
        if not self.checkpoints:
            raise UsageError(f"{self.root} holds no training run; make one with `mecpilot train --out {self.root}`")
        return self.checkpoints[-1]

    def start(self, config: TrainingConfig) -> None:
        """Make the folder. A run of the same name is replaced; a folder that is no run is left alone."""
        if self.root.exists() and not self.config_file.is_file() and any(self.root.iterdir()):
            raise UsageError(f"{self.root} exists and is not a training run; choose another --out")
        try:
            for old in (self.tensorboard, self.root / "checkpoints"):
                shutil.rmtree(old, ignore_errors=True)
            self.held_out_file.unlink(missing_ok=True)
            self.root.mkdir(parents=True, exist_ok=True)
            self._write(self.config_file, {**config.as_json(), "made_with": _made_with()})
        except OSError as error:
            raise FailureError(f"cannot make the run folder {self.root}: {error.strerror}") from error

    def config(self) -> TrainingConfig:
        """The configuration that the run was started with."""
        if not self.config_file.is_file():
            raise UsageError(f"{self.root} holds no training run; make one with `mecpilot train --out {self.root}`")
        return msgspec.convert(self._read(self.config_file), TrainingConfig)

    def description(self) -> dict[str, Any]:
        """The configuration as stored, versions and revision included."""
        return self._read(self.config_file)

    def write_held_out(self, figures: dict[str, Any]) -> None:
        self._write(self.held_out_file, figures)

    def held_out(self) -> dict[str, Any]:
        """Held-out figures of the last weights; empty when there are none yet."""
        return self._read(self.held_out_file) if self.held_out_file.is_file() else {}

    def _write(self, path: Path, values: dict[str, Any]) -> None:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(values), indent=1) + b"\n")

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.MsgspecError) as error:
            raise UsageError(f"{path} cannot be read ({error}); train again") from error


def _made_with() -> dict[str, str]:
    versions = {name: version(name) for name in _PACKAGES}
    return {"revision": revision(), "python": platform.python_version(), **versions}
