"""What a device may refer to, whatever happens between the encoding of a payload and the answer to it."""

from __future__ import annotations

import numpy as np
import pytest
from support.xor_streams import ChainedSender, FreeSender, register

from controller.records import Decision
from runtime.codecs.streams import MOST_STREAMS, Sender
from runtime.link.senders import Draft, Senders

register()
FREE, CHAINED = (Decision("net", 28, 0, 0, codec) for codec in ("xor", "xorchain"))
both = pytest.mark.parametrize("decision", [FREE, CHAINED], ids=lambda d: d.payload)


def sender_of(decision: Decision) -> Sender:
    return ChainedSender() if decision.payload == "xorchain" else FreeSender()


class Bench:
    def __init__(self, decision: Decision) -> None:
        self.senders, self.decision = Senders(sender_of), decision
        self.number = 0

    def draft(self, decision: Decision | None = None) -> Draft:
        """A draft whose head has just been computed."""
        self.number += 1
        draft = self.senders.draft(decision or self.decision, self.number)
        assert draft is not None
        draft.encode(np.full(400, self.number % 256, np.uint8))
        return draft

    def send(self, draft: Draft | None = None) -> int:
        """Send what must be sent now. Returns what it refers to."""
        draft = self.draft() if draft is None else draft
        draft.payload()
        self.number += 1
        self.senders.sent(self.number, draft)
        return draft.encoded.reference_id

    def answer(self) -> None:
        self.senders.answered(self.number)


def test_a_codec_without_references_has_no_draft() -> None:
    senders = Senders(sender_of)
    assert senders.draft(Decision("net", 28, 0, 0, "raw"), 0) is None
    assert senders.draft(Decision("net", 28, 0, 1, "none"), 0) is None


@both
def test_an_answered_request_is_referred_to(decision: Decision) -> None:
    bench = Bench(decision)
    assert bench.send() == 0
    bench.answer()
    assert bench.send() == 2


@both
def test_a_draft_is_encoded_anew_if_the_link_changed_since(decision: Decision) -> None:
    bench = Bench(decision)
    bench.send()
    bench.answer()
    draft = bench.draft()
    assert draft.encoded.reference_id
    bench.senders.forget()
    assert bench.send(draft) == 0


@both
def test_a_frame_that_is_sent_again_between_two_steps_of_another_one_harms_neither(decision: Decision) -> None:
    bench = Bench(decision)
    bench.send()
    bench.answer()
    rejected = bench.draft()
    bench.send(rejected)
    other = bench.draft()
    bench.senders.unknown_reference([bench.number - 1])
    rejected.encode_again()
    assert bench.send(rejected) == 0
    again = bench.number
    assert bench.send(other) == (again if decision is CHAINED else 0)


@both
def test_what_was_never_sent_is_not_referred_to(decision: Decision) -> None:
    bench = Bench(decision)
    bench.send()
    bench.answer()
    bench.draft()
    assert bench.send() in (0, 2)


def test_rejections_of_requests_before_the_one_that_stood_alone_do_not_start_the_stream_again() -> None:
    bench = Bench(CHAINED)
    bench.send()
    first = bench.number
    bench.send()
    bench.send()
    bench.senders.unknown_reference([first + 2])
    assert bench.send() == 0
    bench.senders.unknown_reference([first + 4])
    assert bench.send() != 0


@both
def test_answers_to_requests_of_an_earlier_link_change_nothing(decision: Decision) -> None:
    bench = Bench(decision)
    bench.send()
    bench.senders.forget()
    bench.answer()
    assert bench.send() == 0


def test_only_the_streams_that_were_used_last_are_kept() -> None:
    bench = Bench(FREE)
    for px in range(MOST_STREAMS + 1):
        bench.send(bench.draft(Decision("net", 20 + px, 0, 0, "xor")))
        bench.answer()
    assert bench.send(bench.draft(Decision("net", 20 + MOST_STREAMS, 0, 0, "xor"))) != 0
    assert bench.send(bench.draft(Decision("net", 20, 0, 0, "xor"))) == 0


def test_exits_and_strides_share_a_stream() -> None:
    bench = Bench(FREE)
    bench.send()
    bench.answer()
    assert bench.send(bench.draft(Decision("net", 28, 2, 0, "xor", 3))) == 2
