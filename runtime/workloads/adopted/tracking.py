"""Forecasts of boxes with classes: the tracker of boxes, and the class that each object had last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from controller.forecast import Forecast, Shown
from runtime.forecast.tracker import BoxTracker

Rows = Sequence[Sequence[float]]
_BOX = 5  # x, y, w, h, score; the class follows


class ClassTracker:
    """Owns the tracks of one run; a ``controller.forecast.Forecaster`` of boxes [x, y, w, h, score, class]."""

    def __init__(self, picture: tuple[int, int]) -> None:
        """``picture``: width and height in pixels."""
        self._boxes = BoxTracker(picture)
        self._classes: dict[int, float] = {}  # by track

    def add(self, frame: int, prediction: Rows) -> Forecast | None:
        """See `runtime.forecast.tracker.BoxTracker`."""
        return self._with_classes(self._boxes.add(frame, _plain(prediction)), prediction)

    def add_part(self, frame: int, prediction: Rows, kept: Sequence[int]) -> Forecast | None:
        """See `runtime.forecast.tracker.BoxTracker`."""
        return self._with_classes(self._boxes.add_part(frame, _plain(prediction), kept), prediction)

    def _with_classes(self, forecast: Forecast | None, prediction: Rows) -> Forecast | None:
        if forecast is None:
            return None
        newest = {track: box[_BOX] for track, box in zip(forecast.track_ids, prediction, strict=True)}
        shown = forecast.at(getattr(forecast, "frame", 0)).track_ids or ()
        self._classes = {track: self._classes[track] for track in shown if track in self._classes} | newest
        return _Classed(forecast, dict(self._classes))


@dataclass(frozen=True)
class _Classed:
    """A forecast of boxes, with the class of each track."""

    boxes: Forecast
    classes: dict[int, float]

    @property
    def track_ids(self) -> tuple[int, ...]:
        return self.boxes.track_ids

    @property
    def speed(self) -> float | None:
        return self.boxes.speed

    def at(self, frame: int) -> Shown:
        shown = self.boxes.at(frame)
        tracks = shown.track_ids or ()
        classed = [[*box, self.classes.get(track, 0)] for box, track in zip(shown.prediction, tracks, strict=True)]
        return Shown(classed, shown.track_ids)


def _plain(prediction: Rows) -> list[Sequence[float]]:
    return [box[:_BOX] for box in prediction]
