"""Payloads that refer to an earlier payload, as costs know them: their bytes by the age of the reference.

The age is the number of frames from the frame of the reference to the frame that is sent. Rows that share model,
resolution, partition point and codec share a *stream* (`runtime.codecs.streams`): exit branch and frame stride do not
matter to what is sent. Of a row with a stream,

* the first payload stands alone (column 0), and so does the first one after a new connection, a restart of the MEC or
  an unknown reference;
* a codec that is not **chained** refers to the newest payload of its stream that the MEC has answered, so its age grows
  with what is in flight and with frames that were not sent in this stream;
* a **chained** codec refers to the payload sent just before in its stream, answered or not. Its age is the distance
  between these two frames. When one of them is lost, the next payload stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from controller.records import Bools, Floats, Ints

#: Stream of a row whose payloads never refer to another one.
NO_STREAM = -1


@dataclass(frozen=True)
class ReferenceCosts:
    """Bytes by age of the reference, for C rows of a cost table and A recorded ages."""

    ages: Ints  # (A,) int64, in frames, ascending
    #: (C, A + 1) mean over the validation split: of payloads that stand alone (column 0), and of payloads whose
    #: reference is ``ages[0]``, ``ages[1]``, ... frames old. All columns are equal in a row without a stream.
    payload_bytes: Floats
    stream: Ints  # (C,) int64 number of the row's stream, from 0; NO_STREAM where payloads always stand alone
    chained: Bools  # (C,) rows whose payloads refer to the one sent just before; False without a stream

    def column(self, age: Ints) -> Ints:
        """The column for references that are ``age`` frames old, of any shape; 0 stands for no reference.

        An age that was not recorded counts as the next older one, and ages beyond the last as the last.
        """
        age = np.asarray(age)
        found = 1 + np.minimum(np.searchsorted(self.ages, age), len(self.ages) - 1)
        return np.where(age <= 0, 0, found)

    @cached_property
    def column_of_age(self) -> Ints:
        """(last age + 1,) ``column`` for the ages 0, 1, ... The last one holds for all older references."""
        return self.column(np.arange(self.ages[-1] + 1))

    @property
    def streams(self) -> int:
        """Number of streams: ``stream`` is less."""
        return int(self.stream.max(initial=NO_STREAM)) + 1

    def and_alone(self, payload_bytes: Floats) -> ReferenceCosts:
        """The same rows, and behind them some without a stream, whose ``payload_bytes`` are (n, A + 1)."""
        count = len(payload_bytes)
        return ReferenceCosts(
            self.ages,
            np.concatenate((self.payload_bytes, payload_bytes)),
            np.concatenate((self.stream, np.full(count, NO_STREAM))),
            np.concatenate((self.chained, np.zeros(count, np.bool_))),
        )

    def take(self, rows: Ints) -> ReferenceCosts:
        """The costs of the given rows, in the given order; streams are numbered anew."""
        return ReferenceCosts(self.ages, self.payload_bytes[rows], _renumbered(self.stream[rows]), self.chained[rows])


def _renumbered(stream: Ints) -> Ints:
    """The same streams with the numbers 0, 1, ... in ascending order."""
    numbers = np.unique(stream[stream != NO_STREAM])
    return np.where(stream == NO_STREAM, NO_STREAM, np.searchsorted(numbers, stream))
