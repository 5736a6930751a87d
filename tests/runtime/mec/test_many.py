"""Devices that ask a MEC for more than it can do, over real sockets: every answer is the one computed alone."""

from __future__ import annotations

import pytest
from support.live import WORKLOAD

from benchmarks.bench_many import digests_alone, raw_row, slowdown_for
from benchmarks.support.crowd import Client, payload_of, play
from runtime.bundles.bundle import open_bundle
from runtime.config.sections.admission import AdmissionSection
from runtime.link.dealer import Dealer
from runtime.mec.server import MecServer

DEVICES, TAIL_MS, BUDGET_S = 8, 8.0, 0.25


@pytest.mark.realtime
def test_answers_under_overload_equal_those_computed_alone_and_every_device_gets_some() -> None:
    bundle = open_bundle(WORKLOAD)
    row = raw_row(bundle)
    slowdown = slowdown_for(bundle, row, TAIL_MS)
    with MecServer(WORKLOAD, "tcp://127.0.0.1:*", slowdown=slowdown, admission=AdmissionSection()) as mec:
        mec.start()
        clients = [Client(n, 0.03, Dealer(mec.endpoint), payload_of(bundle, row, n)) for n in range(DEVICES)]
        try:
            play(clients, bundle, row, BUDGET_S, seconds=1.5)
        finally:
            for client in clients:
                client.dealer.close()
    alone = digests_alone(bundle, row, DEVICES)
    for client in clients:
        served = [each for each in client.rows if each["ending"] == "served"]
        assert served
        assert {each["digest"] for each in served} == {alone[client.number]}
    endings = {each["ending"] for client in clients for each in client.rows}
    assert "busy" in endings
