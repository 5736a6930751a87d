"""Exports a run to a policy file: the actor of its last checkpoint, or of its best one if the run keeps that."""

from __future__ import annotations

from pathlib import Path

from agents.compare.trained_on import DIGESTS, digests_of
from agents.runs.checkpoint import load_actor
from agents.runs.run_folder import RunFolder
from runtime.files.policy_file import PolicyManifest, save_policy


def export(folder: RunFolder, out: Path) -> PolicyManifest:
    """Write the policy file of a run, with its configuration and held-out figures. The run may be unfinished."""
    config = folder.config()
    policy = load_actor(folder.exported_checkpoint())
    training = folder.description()
    if config.traces and (digests := digests_of(config.traces, config.seed)) is not None:
        training[DIGESTS] = digests
    return save_policy(out, policy, config.workload, training, folder.held_out(), folder.ranges())
