"""Trains several seeds of one configuration, each into a run folder of its own.

A piece of the work is a whole training: a worker trains in a folder of its own and sends its files, which then appear
in the run folder all at once. So a folder holds a finished training or none, and the same command goes on with the
others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.runs.seed_folders import PIECE, folder_of, piece_of
from agents.scale.pieces import Job, Reached, decoded, encoded
from agents.scale.runner import Runner, fan_out
from agents.scale.setups import (
    opened_bundle,
    opened_policy,
    opened_traces,
    plain_bundle,
    plain_policy,
    plain_profile,
    plain_traces,
    profile_file,
)
from agents.training.training import Options, setup_of, train
from envs.setup import traces_of


def train_seeds(
    config: TrainingConfig,
    seeds: Sequence[int],
    out: Path,
    options: Options,
    runner: Runner,
    progress: Callable[[int], None] = lambda _: None,
    *,
    again: bool = False,
) -> list[RunFolder]:
    """Train every seed into ``out``; of the options ``profile``, ``overwrite``, ``start`` and ``say`` count.

    A finished training with equal inputs is used as it is, unless the seeds are to be trained ``again``.
    The caller holds the lock of ``out``. UsageError, before anything is trained, for inputs that cannot be used and for
    a folder that is in use or holds something else.
    """
    job, folders = Job.of("agents.training.seeds:training", _common(config, options)), _Folders(out, options.say, again)
    keys = {seed: job.key(encoded(seed)) for seed in seeds}
    for seed, key in keys.items():
        folders.check(seed, key, options.overwrite)
    fan_out(runner, job, seeds, [config.steps] * len(seeds), progress, folders)
    return [folder_of(out, seed) for seed in seeds]


def training(common: Any, own: Any, reached: Reached) -> Any:
    """A piece: the files of a training."""
    opened_bundle(common["bundle"])  # says what is missing here, and lets this process know the workload
    config = replace(msgspec.convert(common["config"], TrainingConfig), seed=own)
    bank = common["traces"] and opened_traces(common["traces"])
    start = common["start"] and opened_policy(common["start"])
    with tempfile.TemporaryDirectory(prefix="mecpilot-") as folder:
        run = RunFolder(Path(folder) / "run")
        train(config, run, Options(profile_file(common["profile"]), start=start, progress=reached, bank=bank))
        return {"seed": own, "files": run.files()}


def _common(config: TrainingConfig, options: Options) -> dict[str, Any]:
    bank = traces_of([Path(source) for source in config.traces], "train", config.seed)
    setup = setup_of(config, bank, options.profile)
    return {
        "bundle": plain_bundle(setup.bundle),
        "config": msgspec.to_builtins(replace(config, seed=0)),
        "traces": plain_traces(bank) if config.traces else None,  # the built-in ones differ from seed to seed
        "profile": plain_profile(setup.bundle, options.profile),
        "start": options.start and plain_policy(options.start),
    }


@dataclass(frozen=True)
class _Folders:
    """The run folders, as what keeps the finished pieces."""

    out: Path
    say: Callable[[str], None]
    again: bool
    _seeds: dict[str, int] = field(default_factory=dict)

    def check(self, seed: int, key: str, overwrite: bool) -> None:
        """UsageError if the folder of the seed is in use, or holds something that must not be replaced."""
        self._seeds[key] = seed
        folder = folder_of(self.out, seed)
        folder.refuse_if_used()
        if self.again or piece_of(folder) != key:
            folder.refuse_existing(overwrite, resumable=False)

    def get(self, key: str) -> bytes | None:
        finished = not self.again and piece_of(folder_of(self.out, self._seeds[key])) == key
        return encoded(None) if finished else None

    def put(self, key: str, result: bytes) -> None:
        run = decoded(result)
        folder = folder_of(self.out, run["seed"])
        folder.take(run["files"], {PIECE: key})
        self.say(f"seed {run['seed']} is in {folder.root}")
