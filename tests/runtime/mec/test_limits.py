"""What a device may take: buckets, verdicts, and accounts that memory can hold."""

from __future__ import annotations

import contextlib
import math

from hypothesis import given
from hypothesis import strategies as st

from runtime.config.sections.admission import OPEN_ADMISSION, AdmissionSection
from runtime.link.dealer import Dealer
from runtime.link.router import Incoming, Router
from runtime.mec.limits import (
    ADDRESS_DEVICES,
    FAULT_MESSAGES,
    FEW_MESSAGES,
    FIRST_BAR_S,
    FIRST_MESSAGES,
    FORGET_S,
    MOST_ACCOUNTS,
    MOST_ANSWERS,
    MOST_PATIENCE,
    Account,
    Accounts,
    TokenBucket,
    Verdict,
)

LIMITS = AdmissionSection(device_message_rate=100.0, device_mbyte_rate=1.0)


def verdicts(account: Account, count: int, at_s: float, size_bytes: int = 100) -> list[Verdict]:
    return [account.judge(size_bytes, at_s) for _ in range(count)]


@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.1, 5.0)), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate_and_one_burst(steps: list[tuple[float, float]]) -> None:
    bucket, now_s, taken, largest = TokenBucket(10.0, 0.0), 0.0, 0.0, 0.0
    for wait_s, count in steps:
        now_s += wait_s
        largest = max(largest, count)
        taken += count * bucket.take(count, now_s)
        assert taken <= 10.0 + 10.0 * now_s + largest + 1e-6


def test_a_device_that_keeps_to_its_rate_is_never_shed() -> None:
    account = Account(LIMITS, 0.0)
    assert {account.judge(5000, second / 99) for second in range(5000)} == {Verdict.PASS}


def test_a_flood_is_shed_then_unanswered_then_cut_off() -> None:
    account = Account(LIMITS, 0.0)
    got = verdicts(account, 1000, at_s=0.0, size_bytes=0)
    ways = [got.count(verdict) for verdict in (Verdict.PASS, Verdict.SHED, Verdict.DROP)]
    assert ways == [FIRST_MESSAGES, MOST_ANSWERS, MOST_PATIENCE - MOST_ANSWERS]
    assert set(got[sum(ways) :]) == {Verdict.CUT}


def test_a_device_that_was_cut_off_is_barred_for_longer_each_time() -> None:
    account, now_s, bars = Account(LIMITS, 0.0), 0.0, []
    for _ in range(3):
        while account.judge(100, now_s) is not Verdict.CUT:
            pass
        began_s = now_s
        while account.judge(100, now_s) is Verdict.CUT:
            now_s += 0.01
        bars.append(now_s - began_s)
    assert [round(bar_s / FIRST_BAR_S) for bar_s in bars] == [1, 2, 4]


def test_bytes_count_as_messages_do() -> None:
    account = Account(LIMITS, 0.0)
    assert verdicts(account, 4, 0.0, size_bytes=400_000) == [Verdict.PASS] * 3 + [Verdict.SHED]
    assert verdicts(account, 1, 1.0, size_bytes=400_000) == [Verdict.PASS]


def test_malformed_messages_are_dearer() -> None:
    account, passed = Account(LIMITS, 0.0), 0
    while account.judge(10, 0.0) is Verdict.PASS:
        account.fault()
        passed += 1
    assert passed <= FIRST_MESSAGES / 4


def test_without_limits_everything_passes() -> None:
    assert set(verdicts(Account(OPEN_ADMISSION, 0.0), 10_000, 0.0, size_bytes=1 << 22)) == {Verdict.PASS}


def test_connections_of_one_user_share_an_account_and_others_have_their_own() -> None:
    accounts = Accounts(LIMITS)
    first = accounts.of(Incoming(b"1", [b""], "camera"), 0.0)
    assert accounts.of(Incoming(b"2", [b""], "camera"), 0.0) is first
    assert accounts.of(Incoming(b"1", [b""], "other"), 0.0) is not first
    assert accounts.of(Incoming(b"1", [b""]), 0.0) is not accounts.of(Incoming(b"2", [b""]), 0.0)


def test_a_user_that_was_cut_off_stays_so_over_a_new_connection_and_a_stranger_starts_anew() -> None:
    accounts = Accounts(LIMITS)
    while accounts.of(Incoming(b"1", [b""], "camera"), 0.0).judge(10, 0.0) is not Verdict.CUT:
        pass
    assert accounts.of(Incoming(b"2", [b""], "camera"), 0.5).judge(10, 0.5) is Verdict.CUT
    assert accounts.of(Incoming(b"3", [b""], "good"), 0.5).judge(10, 0.5) is Verdict.PASS


def test_a_plain_peer_that_leaves_before_it_is_cut_off_gains_little_by_coming_again() -> None:
    accounts, passed = Accounts(AdmissionSection()), 0
    with contextlib.closing(Router("tcp://127.0.0.1:*", most_connections=100)) as mec:
        for number in range(int(2 * ADDRESS_DEVICES)):
            with contextlib.closing(Dealer(mec.endpoint)) as dealer:
                arrived = None
                while arrived is None:
                    dealer.send([b"here"])
                    arrived = next(mec.receive(), None)
            assert arrived.address == "127.0.0.1"
            account = accounts.of(arrived._replace(peer=b"%d" % number), 0.0)
            while account.judge(10, 0.0) is Verdict.PASS:
                account.fault()
                passed += 1
    each, few = -(-FIRST_MESSAGES // (1 + FAULT_MESSAGES)), -(-FEW_MESSAGES // (1 + FAULT_MESSAGES))
    assert passed == ADDRESS_DEVICES * (each + few)


def test_a_device_with_a_key_does_not_pay_for_others_at_its_address() -> None:
    accounts = Accounts(LIMITS)
    for number in range(int(2 * ADDRESS_DEVICES)):
        account = accounts.of(Incoming(b"1", [b""], f"camera-{number}"), 0.0)
        assert verdicts(account, FIRST_MESSAGES, 0.0) == [Verdict.PASS] * FIRST_MESSAGES


def test_accounts_of_a_flood_of_connections_are_bounded_and_those_in_use_stay() -> None:
    accounts = Accounts(LIMITS)
    busy = accounts.of(Incoming(b"busy", [b""]), 0.0)
    busy.waiting = 1
    for number in range(3 * MOST_ACCOUNTS):
        accounts.of(Incoming(b"%d" % number, [b""]), number * 1e-3).judge(10, number * 1e-3)
    assert len(accounts) <= MOST_ACCOUNTS
    assert accounts.of(Incoming(b"busy", [b""]), 99.0) is busy
    busy.waiting = 0
    accounts.forget(math.inf)
    assert len(accounts) == 0


def test_a_quiet_device_is_forgotten() -> None:
    accounts = Accounts(LIMITS)
    accounts.of(Incoming(b"1", [b""]), 0.0)
    accounts.forget(FORGET_S - 1.0)
    assert len(accounts) == 1
    accounts.forget(FORGET_S + 1.0)
    assert len(accounts) == 0
