"""Trains a policy into a run folder: a warm start and PPO in the vectorised twin, or PPO on the live backend.

The twin's reward uses the expected accuracy of the cost table instead of the score of each replayed sample: the mean is
the same and the noise far smaller. ``mecpilot evaluate`` always uses replayed scores.

All inputs are opened and checked before the folder is touched. After that the folder always holds a checkpoint to
resume from: of the start, of the last round of the warm start, or of PPO.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from agents.compare.traces import hold_out
from agents.learn.config import PpoConfig
from agents.learn.policy import CandidatePolicy
from agents.learn.ppo import learn_rollouts, make_ppo, whole_rollouts
from agents.learn.shared_traces import SharedTracePPO
from agents.learn.warm_start import warm_start
from agents.runs.checkpoint import checkpoint_bytes, load_checkpoint
from agents.runs.interruption import Interrupted
from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.training.callbacks import Every, ProgressCallback, TwinMetrics
from agents.training.observed import observed_ranges
from agents.training.run_recorder import RunRecorder
from controller.controllers.learned import FrozenPolicy
from controller.errors import FailureError, UsageError
from controller.predict.uplink import TraceBank
from envs.env import MecpilotEnv
from envs.setup import Setup, open_setup, traces_of
from envs.vec_env import TwinVecEnv
from runtime.config.sections.device import PrivacySection
from runtime.profiling.profile import used_profile

Progress = Callable[[int], None]
#: Held-out evaluations during PPO, each with a checkpoint; and longest time between two checkpoints.
_EVALUATIONS = 10
_CHECKPOINT_S = 30.0
#: On the live backend one environment runs in real time: short rollouts, and a rate that keeps what the twin taught.
_LIVE_ROLLOUT_STEPS = 64
_LIVE_RATE = 2e-4


@dataclass(frozen=True)
class Options:
    """Options of running a training, which do not change its result except for ``live``, ``profile`` and ``start``."""

    profile: Path | None = None
    resume: bool = False  # from the last checkpoint of the folder
    live: bool = False  # train with real processes instead of the twin
    overwrite: bool = False  # replace a run in the folder
    start: FrozenPolicy | None = None  # initial policy of a new run; None: the rule ``expected-utility``
    progress: Progress = lambda _: None  # called often with the steps done; may raise Interrupted
    opened: Callable[[dict[str, Any]], None] = lambda _: None  # called with traces and profile before the run begins
    say: Callable[[str], None] = lambda _: None  # called with lines of text for the user
    bank: TraceBank | None = None  # the traces that the configuration names, if they are open already


def train(config: TrainingConfig, folder: RunFolder, options: Options) -> PPO:
    """Train for ``config.steps`` steps; write checkpoints, curves and held-out figures into the folder.

    UsageError, before the folder is touched, for options or inputs that cannot be used. FailureError if the folder
    cannot be written.
    """
    torch.set_num_threads(config.threads)
    folder.check(resume=options.resume, overwrite=options.overwrite)
    bank = options.bank or traces_of([Path(source) for source in config.traces], "train", config.seed)
    setup = setup_of(config, bank, options.profile)
    config = replace(config, techniques=setup.techniques)
    learn, judge = (setup.on(traces) for traces in hold_out(bank))
    environment = _live(learn, config, options) if options.live else _twin(learn, config)
    try:
        model = _learner(environment, learn, config, options)
        with folder.lock():
            folder.refuse_if_among_seeds()  # one that began meanwhile and had not seen this lock
            facts = _facts(learn, judge, options)
            rounds_left = _begin(model, config, folder, options, facts)
            options.opened(facts)
            for note in setup.techniques.notes:
                options.say(note)
            _learn(model, config, folder, options, learn, judge, rounds_left)
    except OSError as error:
        raise FailureError(f"cannot write in the run folder {folder.root}: {error.strerror}") from error
    finally:
        environment.close()
    return model


def setup_of(config: TrainingConfig, bank: TraceBank, profile: Path | None) -> Setup:
    """What a configuration trains with, over the given traces; UsageError for inputs that cannot be used."""
    privacy = PrivacySection(no_raw_upload=config.no_raw_upload)
    bundle = config.bundle or config.workload
    without = config.without.split()
    return open_setup(
        bundle,
        bank,
        "validation",
        config.scenario,
        profile,
        privacy,
        without=without,
        techniques=config.techniques,
    )


def _learner(environment: VecEnv, learn: Setup, config: TrainingConfig, options: Options) -> PPO:
    strides = learn.costs.longest_stride > 1
    model = make_ppo(environment, _ppo(config, options), config.seed, strides=strides)
    if options.start is not None and not options.resume:
        assert isinstance(model.policy, CandidatePolicy)
        try:
            model.policy.scorer.take(options.start)
        except ValueError as error:
            raise UsageError(f"the policy to start from does not fit this version's network: {error}") from None
    return model


def _begin(model: PPO, config: TrainingConfig, folder: RunFolder, options: Options, facts: dict[str, Any]) -> int:
    """Create the run folder, or load its last checkpoint. Returns the number of remaining warm-start rounds."""
    if options.resume:
        load_checkpoint(model, folder.latest_checkpoint())
        return 0 if options.live else folder.reached().rounds_left
    folder.recover()
    folder.refuse_existing(options.overwrite)
    rounds = config.warm_start.all_rounds
    folder.start(config, facts, checkpoint_bytes(model, config.steps, rounds))
    return rounds


def _learn(
    model: PPO,
    config: TrainingConfig,
    folder: RunFolder,
    options: Options,
    learn: Setup,
    judge: Setup,
    rounds_left: int,
) -> None:
    goal = model.num_timesteps + config.steps
    run = RunRecorder(model, folder, judge, config, goal, rounds_left, resumed=options.resume)
    try:
        if not options.resume:
            run.describe()
            run.evaluate(draw=True)
        planned = folder.config()
        length = planned.warm_start.round_length(planned.steps, model.n_envs, planned.warm_start.all_rounds)
        warm_start(
            model, [learn], config.warm_start, config.steps, options.progress, rounds_left, run.round_ended, length
        )
        run.warm_start_over()
        if config.warm_start.steps_frac < 1:
            _ppo_part(model, run, options, goal)
        folder.write_ranges(observed_ranges(learn, run.finish()))
    finally:
        run.close()


def _whole_rollouts_text(model: PPO, steps: int, resumed: bool) -> str:
    """What a training whose steps are no multiple of a rollout comes to."""
    rollout, before = model.n_steps * model.n_envs, model.num_timesteps
    count = steps // rollout
    first = f"{before:,} {'steps so far' if resumed else 'warm-start steps'}, then " if before else ""
    rollouts = f"one PPO rollout of {rollout:,}" if count == 1 else f"{count:,} PPO rollouts of {rollout:,} each"
    return f"PPO takes whole rollouts: {first}{rollouts}: {before + steps:,} in all"


def _whole_episodes_text(model: SharedTracePPO) -> str:
    """When PPO on whole episodes stops."""
    most = f"{model.episodes} whole episodes, at most {model.most_steps:,} steps"
    return f"PPO plays {most}, between two updates, and stops after the first update past the goal"


def _ppo_part(model: PPO, run: RunRecorder, options: Options, goal: int) -> None:
    steps = whole_rollouts(model, max(goal - model.num_timesteps, 0))
    if not steps:
        return
    if isinstance(model, SharedTracePPO):
        options.say(_whole_episodes_text(model))
    elif model.num_timesteps + steps > goal:
        options.say(_whole_rollouts_text(model, steps, options.resume))

    def evaluate() -> None:
        run.evaluate()
        run.checkpoint()

    callbacks: list[BaseCallback] = [
        ProgressCallback(lambda: options.progress(model.num_timesteps)),
        Every(evaluate, steps=max(steps // _EVALUATIONS, 1)),
        Every(run.checkpoint, seconds=_CHECKPOINT_S),
    ]
    environment = model.get_env()
    if isinstance(environment, TwinVecEnv):
        callbacks.append(TwinMetrics(environment))
    try:
        learn_rollouts(model, steps, callbacks)
    except Interrupted:
        run.checkpoint()  # it stopped between two steps, so the weights are those of the last update
        raise


def _facts(learn: Setup, judge: Setup, options: Options) -> dict[str, Any]:
    """The inputs behind a result besides the configuration: traces by name, and the profile."""
    trained_on, judged_on = ([trace.name for trace in setup.bank.traces] for setup in (learn, judge))
    used = used_profile(learn.bundle, options.profile)
    return {
        "trained_on": trained_on,
        "judged_on": judged_on,
        "held_out": not set(trained_on) & set(judged_on),
        "profile": {"path": Path(used.path).name, "origin": used.origin, "digest": used.digest},
    }


def _ppo(config: TrainingConfig, options: Options) -> PpoConfig:
    if not options.live:
        return config.ppo
    return replace(
        config.ppo, rollout_steps=_LIVE_ROLLOUT_STEPS, minibatch=_LIVE_ROLLOUT_STEPS, learning_rate=_LIVE_RATE
    )


def _twin(setup: Setup, config: TrainingConfig) -> TwinVecEnv:
    return TwinVecEnv(setup.twin(config.environments, config.seed, reward="expected"))


def _live(setup: Setup, config: TrainingConfig, options: Options) -> VecEnv:
    if config.without:
        raise UsageError(f"training without {config.without} runs in the twin; leave out --live")
    samples = setup.recorded.score.shape[1]
    environment = MecpilotEnv(setup.live(), setup.bank, samples, setup.range, config.seed)
    return DummyVecEnv([lambda: Monitor(environment)])
