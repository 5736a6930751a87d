"""The branchy model: a list of stages with exit heads after some of them. It can be cut between any two stages.

A model with K stages has partition points k = 0..K: `head(x, k)` runs the first k stages (k = 0 returns the input),
`tail(z, k, e)` runs the remaining stages up to exit branch e and its exit head. For exit e the legal points are
0..exit_after[e]. At the last one the device also runs the exit head, and nothing is sent.

Head, tail and whole run the same loop over the same modules, so on one machine `tail(head(x, k), k, e)` equals
`whole(x, e)` bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn

from runtime.models.packing import PackingStage, Shapes


class BranchyModel(nn.Module):
    """Stages in sequence, with exit heads after some of them.

    `exit_after[e]` is the number of stages before exit e; the last exit follows the last stage. Inputs are
    (batch, channels, h, w): u8 pixels if `takes_pixels`, else float. What passes from stage to stage is
    (batch, channels, h, w), or (batch, values) where a stage gives several tensors packed into one
    (``runtime.models.packing``). ValueError when `exit_after` does not fit the stages and exits.
    """

    def __init__(
        self,
        stages: Sequence[nn.Module],
        exits: Sequence[nn.Module],
        exit_after: Sequence[int],
        *,
        takes_pixels: bool = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        _check_layout(len(stages), len(exits), exit_after)
        self.takes_pixels = takes_pixels
        self.channels_last = channels_last
        self.stages = nn.ModuleList(stages)
        self.exits = nn.ModuleList(exits)
        self.exit_after = tuple(exit_after)

    def run_stages(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Run stages start..stop-1 (0-based).

        Every stage gets its input in the same order in memory, so it runs the same kernel wherever the cut is and
        however the tensor was received.
        """
        for stage in self.stages[start:stop]:
            x = stage(self.arranged(x))
        return self.arranged(x)

    def arranged(self, x: Tensor) -> Tensor:
        """A tensor in the order in memory that the stages take: channels last, or as its shape says."""
        if self.channels_last and x.ndim == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x.contiguous()

    def parts_at(self, partition_point: int, packed: tuple[int, ...]) -> Shapes:
        """Shapes of the tensors that are packed into one at a cut, given its shape without the batch; () for one
        tensor that is not packed."""
        stage = self.stages[partition_point - 1] if partition_point else None
        return stage.parts_of(packed) if isinstance(stage, PackingStage) else ()

    def head(self, x: Tensor, partition_point: int) -> Tensor:
        """The part that the device runs: the first `partition_point` stages."""
        return self.run_stages(x, 0, partition_point)

    def tail(self, z: Tensor, partition_point: int, exit_branch: int) -> Tensor:
        """The part after the cut: the remaining stages of this exit, then its head."""
        z = self.run_stages(z, partition_point, self.exit_after[exit_branch])
        output: Tensor = self.exits[exit_branch](z)
        return output

    def whole(self, x: Tensor, exit_branch: int) -> Tensor:
        """The undivided model up to one exit."""
        return self.tail(x, 0, exit_branch)

    def all_exits(self, x: Tensor) -> list[Tensor]:
        """Outputs of every exit in one pass, earliest first."""
        outputs, done = [], 0
        for stop, exit_head in zip(self.exit_after, self.exits, strict=True):
            x = self.run_stages(x, done, stop)
            outputs.append(exit_head(x))
            done = stop
        return outputs


AnyModule = TypeVar("AnyModule", bound=nn.Module)


def channels_last(model: AnyModule) -> AnyModule:
    """Convert a model in place to channels-last order, the fastest for convolutions on a CPU; returns the model."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _check_layout(n_stages: int, n_exits: int, exit_after: Sequence[int]) -> None:
    increasing = all(a < b for a, b in pairwise(exit_after))
    if len(exit_after) != n_exits or not increasing or exit_after[-1] != n_stages:
        raise ValueError(
            f"exit_after={tuple(exit_after)} must be {n_exits} increasing stage counts ending at {n_stages}"
        )


class Residual(nn.Module):
    """relu(main(x) + shortcut(x)); without ``final_relu``, main(x) + shortcut(x) (a linear bottleneck)."""

    def __init__(self, main: nn.Module, shortcut: nn.Module, *, final_relu: bool = True) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut
        self.final = nn.ReLU() if final_relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.final(self.main(x) + self.shortcut(x))
        return output
