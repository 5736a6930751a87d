"""Names of the features in order, the bounds to which they are clipped, and the digest that policy files carry.

The policy scores every candidate with the same weights, so one policy file serves another model set, deadline or
device. Therefore every feature is relative: times to the deadline, bandwidths on a log scale, accuracy to the best of
the table. A policy that was trained on another schema is refused.

The names enter the digest and every policy file. So they stay as they are, even where the code now uses another word:
``interval`` of a candidate is its frame stride, ``occupancy`` its device delay.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from controller.records import UPLINK_HISTORY

#: Uplink estimates under which slack, chance and value of each candidate are shown, from optimistic to pessimistic.
BANDWIDTHS = ("last", "hopeful", "mean8", "least8")

CONTEXT_FEATURES = (
    "log_last_bps",  # newest uplink sample, log10 around 1 Mbit/s
    "log_mean8_bps",  # harmonic mean of the history, likewise
    "log_least8_bps",  # least of the history, likewise
    "spread",  # log10 of the mean over the least
    "trend",  # log10 of the newest over the mean
    "sample_age",  # of the newest uplink sample, in deadlines
    "log_sample_age",  # log10 of it in seconds, around 1 s: whether to try the uplink again depends on seconds
    "backlog",  # time the uplink needs for own bytes under the mean, in deadlines
    "in_flight",  # frames that wait for the MEC
    "queued_frames",  # frames that wait behind this one
    "frame_age",  # in deadlines
    "log_slowdown",  # log10 of the device's slowdown
    "log_mec_slowdown",  # log10 of the MEC's slowdown
    "mec_queue",  # in deadlines
    "mec_queue_mean",  # in deadlines
    "mec_age",  # since the last reply, in seconds
    "rtt",  # in deadlines
    "log_deadline",  # log10 around 100 ms
    "interval",  # capture period in deadlines
    "on_time",  # share of the last frames
    "fallback",  # share of the last frames
    "link_up",  # 1 or 0
    # Of the scene; 0 where it is not known:
    "log_motion",  # log10 of the picture's difference to that of the newest answer, around 0.01
    "confidence",  # expected score of the newest answer, less the best accuracy per frame of the table, in tenths
    "reused",  # share of the last frames that shortcuts answered
    "log_speed",  # log10 of the speed of the tracked objects, around 0.05 heights per frame
)

CANDIDATE_FEATURES = (
    "accuracy",  # per frame, those that are not run included; difference to the best of the table, in tenths
    "interval",  # frames that are not run before the next decision, halved
    "sent",  # 1 when the MEC is asked
    "head",  # device time in deadlines
    "occupancy",  # capture periods by which the device is late for the next decision; negative: idle before it
    "link_occupancy",  # the same for the uplink, under the mean
    "transmit",  # under the mean, in deadlines
    "mec",  # queue, tail and round trip, in deadlines
    "energy",  # its cost in utility per frame, in tenths
    *(f"slack_{name}" for name in BANDWIDTHS),  # in deadlines; until the fallback would start when the MEC is asked
    *(f"chance_{name}" for name in BANDWIDTHS),  # probability of being in time
    *(f"value_{name}" for name in BANDWIDTHS),  # expected utility less delays, relative to the best; squashed
)

_DIGEST_INPUT = f"v9|{CONTEXT_FEATURES}|{CANDIDATE_FEATURES}|{UPLINK_HISTORY}"


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """Names of the features in order, their bounds, and a digest over the names and scales."""

    context: tuple[str, ...] = CONTEXT_FEATURES
    candidate: tuple[str, ...] = CANDIDATE_FEATURES
    low: float = -4.0  # every feature is clipped to [low, high]
    high: float = 4.0

    @property
    def digest(self) -> str:
        """SHA-256 in hexadecimal."""
        return hashlib.sha256(_DIGEST_INPUT.encode()).hexdigest()


FEATURE_SCHEMA = FeatureSchema()
