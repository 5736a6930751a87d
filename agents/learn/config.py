"""The hyperparameters of a training: of the warm start, and of PPO.

They stand apart from the code that uses them, so that a run folder is read, and refused, without loading torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import UsageError

#: Initial logits per 0.1 of expected utility: training starts from that rule, softened enough to explore. With
#: 20 the softmax is so sharp that neither a fit nor PPO moves it where the rule is wrong: the regret of a fit to 33,000
#: branched states of campus, on other states, is 0.31 with 20 and 0.25 with 2.
GREEDY_WEIGHT = 2.0


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How a network is fitted to samples."""

    epochs: int = 8
    minibatch: int = 1024
    learning_rate: float = 5e-3  # initial; decays linearly to zero


@dataclass(frozen=True, slots=True)
class BranchConfig:
    """The last rounds, in which the twin plays candidates out."""

    #: Number of these rounds; 0: none. Each is a policy iteration: many small ones beat a few large ones.
    rounds: int = 7
    kept_rounds: int = 3  # each fit uses the samples of this many rounds, the newest ones
    every: int = 6  # decisions from one branched state to the next
    candidates: int = 16  # played out per state: the best by penalised utility, and the policy's own choice
    frames: int = 20  # length of a branch
    #: Share of a beam search's values (``envs.search.best``) in the labels; the rest are the branches'. The search
    #: knows the future, so its values are optimistic.
    expert_frac: float = 0.0
    expert_width: int = 1  # of the beam
    fit: FitConfig = FitConfig(epochs=10, minibatch=512, learning_rate=4e-3)


@dataclass(frozen=True, slots=True)
class WarmStartConfig:
    """How the scorer and the critic are fitted before PPO."""

    steps_frac: float = 0.85  # share of all environment steps of a training; 0: no warm start, 1: no PPO
    rounds: int = 0  # rounds with penalties; 0 if the scorer is a good policy already
    kept_rounds: int = 5  # each fit uses the samples of this many rounds, the newest ones
    fit: FitConfig = FitConfig()
    branches: BranchConfig = BranchConfig()
    device_penalty: float = 0.4  # utility per frame interval by which the device is late for the next frame
    link_penalty: float = 0.05  # the same for the link: the next frames lose their offload, not their answer
    most_link_intervals: float = 10.0  # cap of the link's delay: after a failed transfer the device decides otherwise
    #: Weight of streaming accuracy if samples are a stream: utility does not depend on the latency within the deadline,
    #: but a later answer is older when it is looked at. On campus, 0.4 earns 0.001 more utility than 0.7, and 0.004
    #: less streaming accuracy.
    streaming_weight: float = 0.5
    knowledge_bonus: float = 0.1  # utility of sending ``knowledge_age_s`` or more after the last bandwidth sample
    knowledge_age_s: float = 6.0
    entropy: float = 3e-3  # entropy bonus; keeps the softmax wide enough for PPO to try alternatives

    def __post_init__(self) -> None:
        for name, value in (("steps_frac", self.steps_frac), ("branches expert_frac", self.branches.expert_frac)):
            if not 0 <= value <= 1:
                raise UsageError(f"warm start {name}: got {value}; expected 0 to 1")
        counted = {
            "": (self, ("kept_rounds", "knowledge_age_s")),
            "branches ": (self.branches, ("kept_rounds", "every", "candidates", "frames", "expert_width")),
            "fit ": (self.fit, ("epochs", "minibatch", "learning_rate")),
            "branches fit ": (self.branches.fit, ("epochs", "minibatch", "learning_rate")),
        }
        for part, (record, names) in counted.items():
            for name in names:
                if not getattr(record, name) > 0:
                    raise UsageError(f"warm start {part}{name}: got {getattr(record, name)}; expected more than 0")
        for part, rounds in (("", self.rounds), ("branches ", self.branches.rounds)):
            if rounds < 0:
                raise UsageError(f"warm start {part}rounds: got {rounds}; expected 0 or more")

    @property
    def all_rounds(self) -> int:
        return self.rounds + self.branches.rounds

    def round_length(self, steps: int, environments: int, rounds_left: int) -> int:
        """Decisions per environment and round: ``rounds_left`` rounds share ``steps_frac`` of ``steps``."""
        return int(self.steps_frac * steps) // (rounds_left * environments) if rounds_left else 0


@dataclass(frozen=True, slots=True)
class PpoConfig:
    """Hyperparameters of PPO, with stable-baselines3's meaning."""

    rollout_steps: int = 64  # per environment between two updates
    minibatch: int = 512
    epochs: int = 4
    learning_rate: float = 1e-3  # decays linearly over all steps, the warm start's included
    gamma: float = 0.98  # per frame
    gae_lambda: float = 0.95
    clip_frac: float = 0.2
    entropy: float = 0.0
    value_weight: float = 0.5
    target_kl: float = 0.03
    max_grad_norm: float = 5.0
    greedy_weight: float = GREEDY_WEIGHT  # initial logits per 0.1 of expected utility
    siblings: int = 4  # episodes of one scenario, each other's baseline; 1: none, a critic is the baseline
    episodes: int = 32  # between two updates, if there are siblings; ``rollout_steps`` does not count then

    def __post_init__(self) -> None:
        for name in ("rollout_steps", "minibatch", "epochs", "learning_rate", "value_weight", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise UsageError(f"PPO {name}: got {getattr(self, name)}; expected more than 0")
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"PPO {name}: got {getattr(self, name)}; expected 0 to 1")
        if self.siblings < 1 or self.episodes < self.siblings or self.episodes % self.siblings:
            got = f"{self.episodes} with {self.siblings} siblings"
            raise UsageError(f"PPO episodes: got {got}; expected a multiple of the siblings")


#: Large steps, because all that is learned must come from PPO.
WITHOUT_WARM_START = PpoConfig(minibatch=256, learning_rate=5e-3, gamma=0.97, target_kl=0.05)
