"""Measures what crops of a bundle score: the answers to every sample at every age of the answer that they refer to.

Device and recording share the rule (``controller.regions``), so without forecasts a recorded answer is what a device
finds: it depends on the sample and on that age alone. With forecasts it depends on what the tracker saw before; here
that is the whole picture of every frame up to the answer that the crop refers to, and then the crop of every
frame.

Samples are taken as a circle, as the twin plays them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from controller.errors import UsageError
from controller.forecast import Forecaster
from controller.records import NO_PAYLOAD
from controller.regions import MOST_AGE, Aim, Window, window_of
from controller.reuse import PastAnswer, past_answer
from runtime.building.split_frames import RECORDED_SPLITS
from runtime.bundles.bundle import Bundle
from runtime.bundles.recorded import MAX_LAG
from runtime.codecs import get_codec
from runtime.regions.costs import crops_of
from runtime.regions.part import part_of
from runtime.regions.scores import CROPS_FILE, CropHeader, CropRow, CropTables, SentCrop, write_crops
from runtime.shortcuts.filtering.features import small_copy
from runtime.workloads.base import Workload
from runtime.workloads.crop_decisions import CropDecisions
from runtime.workloads.inputs import model_input
from runtime.workloads.types import Image, Split

#: Ages of the answer to a whole picture at which crops are measured, in frames.
AGES = tuple(range(1, MOST_AGE + 1))
_BATCH = 8

Advance = Callable[[str], None]
#: Answers and their confidence per exit and codec (``NO_PAYLOAD``: without loss), one for each picture.
Answers = dict[tuple[int, str], list[tuple[Any, float]]]


def measure_crops(bundle: Bundle, workload: Workload, out: Path, advance: Advance = lambda _: None) -> None:
    """Write ``CROPS_FILE`` into the folder ``out``. ``advance`` is called before each of ``steps``."""
    shares = crops_of(workload)
    crops = workload.crops
    assert crops is not None
    families = [info for info in bundle.manifest.models if info.name in crops.families]
    if not families:
        raise UsageError(f"the bundle {bundle.directory} has no model among {crops.families}; expected one of them")
    rows, sent = tuple(_rows(bundle, crops)), tuple(_sent(crops))
    splits = {split: _Split(bundle, workload, split) for split in RECORDED_SPLITS}
    tables = {str(split): of.tables(rows, sent, shares, advance) for split, of in splits.items()}
    header = CropHeader(
        1,
        {info.name: info.file.sha256 for info in families},
        AGES,
        shares,
        rows,
        sent,
        {str(split): of.count for split, of in splits.items()},
    )
    write_crops(out / CROPS_FILE, header, tables)


def steps(bundle: Bundle, workload: Workload) -> int:
    """How often ``measure_crops`` calls ``advance``."""
    crops = workload.crops
    return 0 if crops is None else len(RECORDED_SPLITS) * len(set(_networks(_rows(bundle, crops))))


def _rows(bundle: Bundle, crops: CropDecisions) -> Iterator[CropRow]:
    """Every exit on the device alone, and the last one for each image codec."""
    for crop in crops.shares:
        for name in (name for name in bundle.model_names if name in crops.families):
            for px in crops.resolutions_px:
                last = len(bundle.info(name).exits) - 1
                yield from (CropRow(crop, name, px, e, NO_PAYLOAD) for e in range(last + 1))
                yield from (CropRow(crop, name, px, last, codec) for codec in crops.image_codecs)


def _sent(crops: CropDecisions) -> Iterator[SentCrop]:
    for crop in crops.shares:
        for px in crops.resolutions_px:
            yield from (SentCrop(crop, px, codec) for codec in crops.image_codecs)


def _networks(rows: Iterator[CropRow] | Sequence[CropRow]) -> dict[tuple[str, int], None]:
    return {(row.model, row.resolution_px): None for row in rows}


@dataclass(frozen=True)
class _Seen:
    """Where the crops of one share lie."""

    windows: list[list[Window | None]]  # per age and sample

    def distinct(self) -> dict[tuple[int, Window], int]:
        """(sample, window) of every picture that is run, with its number."""
        found: dict[tuple[int, Window], int] = {}
        for of_age in self.windows:
            for sample, window in enumerate(of_age):
                if window is not None:
                    found.setdefault((sample, window), len(found))
        return found


class _Split:
    """Measures one split. Owns its pictures."""

    def __init__(self, bundle: Bundle, workload: Workload, split: Split) -> None:
        self._bundle, self._workload, self._name = bundle, workload, split
        self.count = bundle.manifest.sample_counts[str(split)]
        samples = [workload.sample(index, split) for index in range(self.count)]
        self._pictures: list[Image] = [picture for picture, _ in samples]
        self._truths = [truth for _, truth in samples]
        height, width = self._pictures[0].shape[:2]
        self._size = (width, height)

    def tables(
        self, rows: Sequence[CropRow], sent: Sequence[SentCrop], shares: Sequence[float], advance: Advance
    ) -> CropTables:
        seen = {share: self._seen(share) for share in shares}
        shape = (len(rows), len(AGES), MAX_LAG + 1, self.count)
        still, moved = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        confidence, speed = (np.zeros((len(rows), len(AGES), self.count), np.float32) for _ in range(2))
        sent_bytes = np.zeros((len(sent), len(AGES), self.count), np.int32)
        for model, px in _networks(rows):
            advance(f"{model} at {px} px, {self._name}")
            whole = self._answers(model, px, self._pictures, rows)
            for share, of in seen.items():
                places = of.distinct()
                parts = [part_of(self._pictures[sample], window) for sample, window in places]
                found = self._answers(model, px, parts, rows)
                for k, row in enumerate(rows):
                    if (row.crop, row.model, row.resolution_px) == (share, model, px):
                        key = (row.exit_branch, row.codec)
                        still[k], moved[k], speed[k] = self._scores(of, places, whole[key], found[key])
                        confidence[k] = self._confidence(of, places, whole[key], found[key])
        for k, crop in enumerate(sent):
            sent_bytes[k] = self._bytes(crop, seen[crop.crop])
        usable = np.array([[[w is not None for w in of_age] for of_age in of.windows] for of in seen.values()])
        has_forecast = self._workload.forecaster() is not None
        if not has_forecast:
            return CropTables(still, None, sent_bytes, usable, confidence, None)
        return CropTables(still, moved, sent_bytes, usable, confidence, speed)

    def _seen(self, share: float) -> _Seen:
        """Windows from the small copies of two pictures, as on the device."""
        copies = [small_copy(picture) for picture in self._pictures]
        return _Seen(
            [[window_of(copies[s - age], copies[s], share, self._size) for s in range(self.count)] for age in AGES]
        )

    @torch.inference_mode()
    def _answers(self, model: str, px: int, pictures: Sequence[Image], rows: Sequence[CropRow]) -> Answers:
        """The answers of every exit without loss, and of the last exit after each codec."""
        network, found = self._bundle.model(model), Answers()
        codecs = dict.fromkeys(row.codec for row in rows if row.codec != NO_PAYLOAD)
        last = len(network.exits) - 1
        for start in range(0, len(pictures), _BATCH):
            batch = np.stack([self._workload.resize(one, px) for one in pictures[start : start + _BATCH]])
            for e, outputs in enumerate(network.all_exits(model_input(self._workload, network, batch))):
                found.setdefault((e, NO_PAYLOAD), []).extend(self._judged(model, px, e, outputs.numpy()))
            for codec in codecs:
                arrived = model_input(self._workload, network, get_codec(codec).roundtrip(batch))
                outputs = list(network.all_exits(arrived))[last]
                found.setdefault((last, codec), []).extend(self._judged(model, px, last, outputs.numpy()))
        return found

    def _judged(self, model: str, px: int, exit_branch: int, outputs: Any) -> Iterator[tuple[Any, float]]:
        """The answer and the confidence that each of the outputs (n, ...) holds."""
        temperature = self._bundle.info(model).exits[exit_branch].temperature
        confidence = self._workload.confidence(outputs, temperature).tolist()
        return zip(self._workload.answers(outputs, px), confidence, strict=True)

    def _confidence(
        self,
        seen: _Seen,
        places: dict[tuple[int, Window], int],
        whole: list[tuple[Any, float]],
        found: list[tuple[Any, float]],
    ) -> NDArray[np.float32]:
        """(A, S) of what was run."""
        table = [
            [whole[s][1] if w is None else found[places[s, w]][1] for s, w in enumerate(of_age)]
            for of_age in seen.windows
        ]
        return np.array(table, np.float32)

    def _bytes(self, crop: SentCrop, seen: _Seen) -> NDArray[np.int32]:
        """(A, S) of the crop, or of the whole picture where that is run."""
        codec, known = get_codec(crop.codec), dict[tuple[int, Window | None], int]()
        found = np.zeros((len(AGES), self.count), np.int32)
        for a, of_age in enumerate(seen.windows):
            for sample, window in enumerate(of_age):
                if (sample, window) not in known:
                    picture = self._pictures[sample]
                    part = picture if window is None else part_of(picture, window)
                    image = self._workload.resize(part, crop.resolution_px)
                    known[sample, window] = len(codec.encode(image))
                found[a, sample] = known[sample, window]
        return found

    def _scores(
        self,
        seen: _Seen,
        places: dict[tuple[int, Window], int],
        whole: list[tuple[Any, float]],
        found: list[tuple[Any, float]],
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """(A, L, S) standing still, and moved on; (A, S) how fast the objects move then."""
        scores = np.zeros((2, len(AGES), MAX_LAG + 1, self.count), np.float32)
        speed = np.full((len(AGES), self.count), np.nan, np.float32)
        for kind, forecaster in enumerate((None, self._workload.forecaster())):
            for answers in _after_each([answer for answer, _ in whole], forecaster):
                for a, age in enumerate(AGES):
                    sample = (answers.sample + age) % self.count
                    window = seen.windows[a][sample]
                    part = None if window is None else found[places[sample, window]][0]
                    answer = answers.next(age, whole[sample][0], window, part, self._size)
                    scores[kind, a, :, sample] = self._lagged(answer)
                    if answer.forecast is not None and answer.forecast.speed is not None:
                        speed[a, sample] = answer.forecast.speed
        return scores[0], scores[1], speed

    def _lagged(self, answer: PastAnswer) -> list[float]:
        """(L,) against the truth of its frame and of those after it."""
        score, truths = self._workload.score, self._truths
        own = score(answer.prediction, truths[(answer.frame - _LEAD) % self.count])
        frames = range(answer.frame + 1, answer.frame + MAX_LAG + 1)
        later = (score(answer.at(f).prediction, truths[(f - _LEAD) % self.count]) for f in frames)
        return [own, *later]


#: Frame number of sample 0: the frames before it are the last samples.
_LEAD = 2 * max(AGES)


class _Answers:
    """The answers after one to the whole picture of a sample: crops at each age, as far as they could be run."""

    def __init__(self, sample: int, whole: PastAnswer, forecaster: Forecaster | None) -> None:
        self.sample = sample
        self._whole, self._forecaster = whole, forecaster

    def next(self, age: int, instead: Any, window: Window | None, found: Any, size: tuple[int, int]) -> PastAnswer:
        """The answer to the frame so much later; ``instead``: that to its whole picture, where there is no window."""
        frame = self._whole.frame + age
        if window is None:
            return past_answer(frame, 0.0, instead, deepcopy(self._forecaster))
        prediction, _, kept = Aim(window, self._whole, size).completed(found, frame)
        return past_answer(frame, 0.0, prediction, self._forecaster, kept=kept)


def _after_each(whole: Sequence[Any], forecaster: Forecaster | None) -> Iterator[_Answers]:
    """For each sample, with a forecaster that has seen the whole picture of every frame up to it."""
    for sample in range(-_LEAD if forecaster is not None else 0, len(whole)):
        answer = past_answer(sample + _LEAD, 0.0, whole[sample], forecaster)
        if sample >= 0:
            yield _Answers(sample, answer, deepcopy(forecaster))
