"""A training run: what it leaves, what a refused or interrupted one leaves, and who may write into its folder."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.once import once
from support.waiting import PATIENCE_S, wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import mecpilot
from agents.compare.traces import hold_out
from agents.learn.config import BranchConfig, FitConfig, PpoConfig, WarmStartConfig
from agents.learn.ppo import LinearDecay, learn_rollouts, make_ppo, whole_rollouts
from agents.learn.warm_start import warm_start
from agents.runs import replacing
from agents.runs.checkpoint import load_actor
from agents.runs.export import export
from agents.runs.interruption import Interrupted, interruptible
from agents.runs.progress import reached
from agents.runs.run_folder import RunFolder, TrainingConfig
from agents.training.curves import MEANINGS
from agents.training.training import Options, train
from controller.controllers.learned import FrozenPolicy
from controller.errors import FailureError, UsageError
from controller.scenario import ScenarioRange
from envs.setup import open_setup, traces_of
from envs.vec_env import TwinVecEnv
from runtime.files.policy_file import load_policy, shipped_policy

WARM = WarmStartConfig(
    rounds=2, fit=FitConfig(epochs=1), branches=BranchConfig(rounds=2, candidates=3, frames=3, fit=FitConfig(epochs=1))
)
#: Rounds end after 80, 160, 240 and 320 steps; then PPO makes two rollouts of 64.
ENDS, PPO_ENDS = [80, 160, 240, 320], [384, 448]
CONFIG = TrainingConfig(
    "garments",
    steps=400,
    seed=3,
    environments=8,
    warm_start=WARM,
    ppo=PpoConfig(rollout_steps=8, minibatch=64, epochs=1, siblings=1),
    scenario=ScenarioRange(frames=12),
)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Some to learn from and some to be judged on."""
    folder = tmp_path_factory.mktemp("traces") / "lte"
    folder.mkdir()
    for number in range(12):
        rows = "\n".join(f"{t},{1 + (number + t) % 7}" for t in range(20))
        (folder / f"ride{number}.csv").write_text(f"t_s,uplink_mbps\n{rows}\n")
    return (str(folder),)


@pytest.fixture(scope="module")
def config(traces: tuple[str, ...]) -> TrainingConfig:
    return replace(CONFIG, traces=traces)


@pytest.fixture(scope="module")
def finished(config: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that nobody changes."""
    torch.set_num_threads(1)
    made = once(tmp_path_factory, "finished", lambda path: train(config, RunFolder(path), Options()))
    own = tmp_path_factory.mktemp("runs") / "finished"  # a test process that looks at a run holds its lock for a moment
    return RunFolder(Path(shutil.copytree(made, own)))


def stopping_at(steps: int) -> Callable[[int], None]:
    """Progress of a training that is asked to stop after so many steps."""

    def progress(done: int) -> None:
        if done >= steps:
            raise Interrupted(signal.SIGINT)

    return progress


def interrupted(config: TrainingConfig, root: Path, steps: int) -> RunFolder:
    folder = RunFolder(root)
    with pytest.raises(Interrupted):
        train(config, folder, Options(progress=stopping_at(steps)))
    return folder


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def scalars(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder.tensorboard), {"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def same_weights(first: FrozenPolicy, second: FrozenPolicy) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("from_candidate", "linear"))


class TestCurves:
    def test_begin_at_step_0_and_have_a_point_after_every_round_and_at_the_end(self, finished: RunFolder) -> None:
        found = scalars(finished)
        for tag in ("0_held_out/utility", "0_held_out/gap_to_oracle", "0_held_out/slo_attainment"):
            steps = [step for step, _ in found[tag]]
            assert steps[:5] == [0, *ENDS]
            assert steps[-1] == PPO_ENDS[-1]
        for tag in ("warm_start/actor_loss", "decision/device", "decision/split", "decision/MEC", "slo/in_time"):
            assert [step for step, _ in found[tag]][:4] == ENDS

    def test_have_one_point_per_step_in_ascending_order(self, finished: RunFolder) -> None:
        for tag, points in scalars(finished).items():
            steps = [step for step, _ in points]
            assert steps == sorted(set(steps)), tag

    def test_show_what_matters_first_and_no_artefact(self, finished: RunFolder) -> None:
        tags = sorted(scalars(finished))
        assert tags[0].startswith("0_held_out/")
        assert not [tag for tag in tags if tag.startswith("rollout/") or tag == "0_held_out/steps"]
        assert len([tag for tag in tags if tag.startswith("decision/")]) <= 6

    def test_tell_frames_in_time_reused_late_and_dropped_apart(self, finished: RunFolder) -> None:
        found = scalars(finished)
        parts = [found[f"slo/{name}"] for name in ("in_time", "late", "reused", "dropped")]
        np.testing.assert_allclose(np.sum([[v for _, v in part] for part in parts], axis=0), 1.0, atol=1e-6)

    def test_the_learning_rate_falls_and_stays_above_zero(self, finished: RunFolder) -> None:
        points = scalars(finished)["train/learning_rate"]
        assert [step for step, _ in points] == PPO_ENDS
        rates = [rate for _, rate in points]
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] > 0

    def test_stand_beside_pictures_hyperparameters_and_the_meaning_of_every_metric(self, finished: RunFolder) -> None:
        events = EventAccumulator(str(finished.tensorboard), {"images": 0, "tensors": 0, "scalars": 0})
        events.Reload()
        for tag in ("figures/timeline", "figures/decision_map"):
            assert [image.step for image in events.Images(tag)] == [0, PPO_ENDS[-1]]
        text = events.Tensors("run/metrics/text_summary")[0].tensor_proto.string_val[0].decode()
        assert all(tag in text for tag in MEANINGS)
        raw = b"".join(path.read_bytes() for path in finished.tensorboard.iterdir())
        assert b"_hparams_/session_start_info" in raw
        assert len(list(finished.tensorboard.iterdir())) == 1, "one run, not one more for the hyperparameters"

    def test_logging_changes_no_weight(self, finished: RunFolder, config: TrainingConfig) -> None:
        """The same training, with nothing but the learner."""
        bank = traces_of([Path(source) for source in config.traces], "train")
        setup = open_setup(config.workload, bank, "validation", config.scenario)
        learn = setup.on(hold_out(bank)[0])
        model = make_ppo(
            TwinVecEnv(learn.twin(config.environments, config.seed, reward="expected")), config.ppo, config.seed
        )
        warm_start(model, [learn], config.warm_start, config.steps)
        learn_rollouts(model, whole_rollouts(model, config.steps - model.num_timesteps))
        assert same_weights(load_actor(finished.latest_checkpoint()), model.policy.frozen())  # type: ignore[operator]


def test_a_learning_rate_is_never_negative() -> None:
    assert [LinearDecay(2.0)(progress) for progress in (1.0, 0.25, 0.0, -0.05)] == [2.0, 0.5, 0.0, 0.0]


def test_the_last_update_learns_too() -> None:
    """Three updates of a training of four rollouts, of which the warm start made one."""
    rate = LinearDecay(2.0, update_frac=0.25)
    assert [rate(progress) for progress in (0.5, 0.25, 0.0, -0.01)] == [1.5, 1.0, 0.5, 0.5]


class TestRefused:
    @pytest.mark.parametrize("wrong", [{"traces": ("no_such_dir",)}, {"workload": "zebras"}, {"profile": "nope"}])
    def test_a_training_touches_nothing(
        self, wrong: dict[str, object], finished: RunFolder, config: TrainingConfig, tmp_path: Path
    ) -> None:
        before = content(finished.root)
        changed = replace(config, **{name: value for name, value in wrong.items() if name != "profile"})
        profile = Path("nope") if "profile" in wrong else None
        for folder in (finished, RunFolder(tmp_path / "new")):
            with pytest.raises(UsageError):
                train(changed, folder, Options(profile, overwrite=True))
        assert content(finished.root) == before
        assert not (tmp_path / "new").exists()

    def test_a_run_is_not_replaced_unasked(self, finished: RunFolder, config: TrainingConfig) -> None:
        before = content(finished.root)
        with pytest.raises(UsageError, match=r"finished training run .*--overwrite.*--resume.*--out"):
            train(config, finished, Options())
        assert content(finished.root) == before

    @pytest.mark.parametrize("file", ["notes.txt", "config.json", "checkpoints/step_000000001.safetensors"])
    def test_a_folder_that_is_no_run_is_never_replaced(self, file: str, config: TrainingConfig, tmp_path: Path) -> None:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("{}")
        before = content(tmp_path)
        with pytest.raises(UsageError, match="not a training run"):
            train(config, RunFolder(tmp_path), Options(overwrite=True))
        assert content(tmp_path) == before

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (["--seed", "-1"], "--seed"),
            (["--steps", "0"], "--steps"),
            (["--threads", "0"], "--threads"),
            (["--workload", "zebras"], "zebras"),
            (["--from", "nope.safetensors"], "nope.safetensors"),
            (["--resume"], "no training run"),
        ],
    )
    def test_the_command_says_so_in_one_line(
        self, options: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert mecpilot.main(["train", "--out", str(tmp_path / "run"), *options]) == 2
        streams = capsys.readouterr()
        assert expected in streams.err
        assert streams.err.count("\n") == 1
        assert not (tmp_path / "run").exists()

    def test_another_workload_or_a_finished_run_is_not_resumed(
        self, finished: RunFolder, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = content(finished.root)
        for options, expected in ((["--workload", "campus"], "workload garments"), ([], "finished run")):
            assert mecpilot.main(["train", "--out", str(finished.root), "--resume", *options]) == 2
            assert expected in capsys.readouterr().err
        assert content(finished.root) == before


class TestReplaced:
    def test_with_overwrite_a_new_run_takes_the_place_and_the_users_files_stay(
        self, config: TrainingConfig, tmp_path: Path
    ) -> None:
        folder = interrupted(config, tmp_path / "run", 100)
        (folder.root / "policy.safetensors").write_text("mine")
        other = replace(config, seed=4)
        with pytest.raises(Interrupted):
            train(other, folder, Options(overwrite=True, progress=stopping_at(8)))
        assert folder.config().seed == 4
        assert folder.reached().steps == 0
        assert (folder.root / "policy.safetensors").read_text() == "mine"
        assert not list(folder.root.glob(".mecpilot*"))

    @pytest.mark.parametrize("renames", range(8))
    def test_a_kill_in_between_leaves_the_old_run_or_the_new_one(
        self, renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = ("config.json", "held_out.json", "tensorboard", "checkpoints")
        old = {"config.json": b"old", "held_out.json": b"old", "checkpoints/a": b"old", "mine": b"mine"}
        new = {"config.json": b"new", "checkpoints/b": b"new"}
        for folder, files in ((tmp_path, old), (tmp_path / replacing.NEW, new)):
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        left, rename = [renames], Path.rename

        def killed_later(path: Path, target: Path) -> Path:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return rename(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", killed_later)
            with suppress(KeyboardInterrupt):
                replacing.replace_entries(tmp_path, names)
        replacing.recover(tmp_path, names)
        expected = old if renames < 6 else {**new, "mine": b"mine"}  # three old entries, two new ones, one to commit
        assert content(tmp_path) == expected


class TestLocked:
    def test_a_second_training_is_refused_and_the_lock_ends_with_its_holder(
        self, config: TrainingConfig, tmp_path: Path
    ) -> None:
        folder = interrupted(config, tmp_path / "run", 100)
        with held(folder.root / ".lock"):
            for options in (Options(), Options(overwrite=True), Options(resume=True)):
                with pytest.raises(UsageError, match="is training in"):
                    train(config, folder, options)
            export(folder, tmp_path / "p.safetensors")  # reading is fine
        train(replace(config, steps=8), folder, Options(resume=True))


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The file locked by another process."""
    code = f"import fcntl, sys; f = open({str(path)!r}, 'a'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True)"
    other = subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    with other:
        assert other.stdout.readline() == "held\n"
        yield
        other.kill()


class TestInterrupted:
    @pytest.mark.parametrize(("at", "kept"), [(8, 0), (250, 240), (340, 344)])
    def test_a_training_can_be_resumed_and_exported_from_wherever_it_was(
        self, at: int, kept: int, config: TrainingConfig, tmp_path: Path
    ) -> None:
        folder = interrupted(config, tmp_path / "run", at)
        assert folder.reached().steps == kept
        assert folder.reached().goal == config.steps
        export(folder, tmp_path / "p.safetensors")
        assert load_policy(tmp_path / "p.safetensors")[1].workload == "garments"
        train(replace(config, steps=config.steps - kept), folder, Options(resume=True))
        assert folder.reached().finished
        points = [step for step, _ in scalars(folder)["0_held_out/utility"]]
        assert points == sorted(set(points)), "each step once, also where two parts of the run overlap"
        assert points[0] == 0
        assert set(ENDS) <= set(points)

    def test_the_rounds_that_are_left_are_played(self, config: TrainingConfig, tmp_path: Path) -> None:
        folder = interrupted(config, tmp_path / "run", 170)
        assert reached(folder.latest_checkpoint()).rounds_left == 2
        train(replace(config, steps=config.steps - 160), folder, Options(resume=True))
        left = dict(scalars(folder)["warm_start/rounds_left"])
        assert left == dict(zip(ENDS, [3.0, 2.0, 1.0, 0.0], strict=True))

    @pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_only_asks_and_gives_its_exit_code(self, number: int, exit_code: int) -> None:
        before = signal.getsignal(number)
        with interruptible() as interruption:
            interruption.check()
            signal.raise_signal(number)
            with pytest.raises(Interrupted) as caught:
                interruption.check()
        assert caught.value.exit_code == exit_code
        assert signal.getsignal(number) is before

    def test_a_signal_leaves_a_checkpoint_and_one_line_that_says_how_to_go_on(
        self, traces: tuple[str, ...], tmp_path: Path
    ) -> None:
        folder = RunFolder(tmp_path / "run")
        command = [sys.executable, "-m", "mecpilot", "train", "--workload", "garments", "--out", str(folder.root)]
        command += ["--traces", traces[0]]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        wait_until(folder.held_out_file.is_file, "the first evaluation")
        running.send_signal(signal.SIGTERM)
        _, err = running.communicate(timeout=PATIENCE_S)
        assert running.returncode == 143
        told = [line for line in err.splitlines() if "interrupted" in line]
        assert len(told) == 1
        assert "--resume" in told[0]
        assert folder.checkpoints
        assert "Traceback" not in err


def test_a_full_disk_ends_in_one_line_and_earlier_checkpoints_stay(config: TrainingConfig, tmp_path: Path) -> None:
    folder = interrupted(config, tmp_path / "run", 100)
    before = folder.latest_checkpoint().read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # a checkpoint takes 40,000 bytes
        with pytest.raises(FailureError, match="cannot write") as caught:
            train(replace(config, steps=320), folder, Options(resume=True))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert folder.latest_checkpoint().read_bytes() == before
    assert not list(folder.root.rglob("*.partial*"))
    export(folder, tmp_path / "p.safetensors")


class TestContinued:
    def test_a_policy_scores_as_before_when_it_is_taken_and_restandardised(self) -> None:
        path = shipped_policy("garments")
        assert path is not None
        policy, rng = load_policy(path)[0], np.random.default_rng(0)
        setup = open_setup("garments", traces_of([], "train"), "validation", ScenarioRange(frames=12))
        model = make_ppo(TwinVecEnv(setup.twin(4, 0)), PpoConfig(rollout_steps=8, minibatch=32), 0)
        scorer = model.policy.scorer  # type: ignore[union-attr]
        scorer.take(policy)
        context = rng.standard_normal((50, policy.from_context.shape[0])).astype(np.float32)
        candidates = rng.standard_normal((50, 9, policy.linear.shape[0])).astype(np.float32)
        expected = policy.scores(context, candidates)
        np.testing.assert_allclose(scorer.frozen().scores(context, candidates), expected, rtol=1e-4, atol=1e-3)
        scorer.restandardise(torch.from_numpy(3 * context + 1), torch.from_numpy(2 * candidates - 1))
        np.testing.assert_allclose(scorer.frozen().scores(context, candidates), expected, rtol=1e-3, atol=2e-2)

    def test_what_is_exported_is_never_worse_than_the_start(self, config: TrainingConfig, tmp_path: Path) -> None:
        path = shipped_policy("garments")
        assert path is not None
        harmful = replace(WARM.branches, fit=FitConfig(epochs=1, learning_rate=5.0))  # unlearns whatever it was given
        warm = replace(WARM, rounds=0, branches=harmful)
        continued = replace(config, continues="shipped", warm_start=warm)
        folder = RunFolder(tmp_path / "run")
        train(continued, folder, Options(start=load_policy(path)[0]))
        points = [value for _, value in scalars(folder)["0_held_out/utility"]]
        assert min(points[1:]) < points[0], "nothing was made worse, so this test shows nothing"
        assert folder.held_out()["utility"] == pytest.approx(max(points), abs=1e-6)
        assert folder.exported_checkpoint() == folder.best_checkpoint


def test_a_run_names_its_traces_and_its_profile(finished: RunFolder, tmp_path: Path) -> None:
    export(finished, tmp_path / "p.safetensors")
    training = load_policy(tmp_path / "p.safetensors")[1].training
    assert len(training["trained_on"]) + len(training["judged_on"]) == 12
    assert not set(training["trained_on"]) & set(training["judged_on"])
    assert training["held_out"] is True
    assert set(training["profile"]) == {"path", "origin", "digest"}
    assert os.sep not in training["profile"]["path"]


def test_one_trace_is_not_called_held_out(
    config: TrainingConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = sorted(Path(config.traces[0]).glob("*.csv"))[0]
    scenario = tmp_path / "s.json"
    scenario.write_text(json.dumps({"frames": 5}))
    arguments = ["--traces", str(one), "--scenario", str(scenario), "--steps", "1", "--out", str(tmp_path / "run")]
    assert mecpilot.main(["train", "--workload", "garments", *arguments]) == 0
    streams = capsys.readouterr()
    assert "held-out" not in streams.out
    assert "trained on" in " ".join(streams.out.split())
    assert "profile" in streams.err


def test_the_lock_file_is_held_by_flock(tmp_path: Path) -> None:
    """So that it ends with its process, and other tools see it."""
    with RunFolder(tmp_path / "run").lock():
        descriptor = os.open(tmp_path / "run" / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)
