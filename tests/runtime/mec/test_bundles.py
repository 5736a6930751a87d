"""Which bundles a MEC serves at a time: its own, the current and previous releases, and those that drain."""

from __future__ import annotations

from dataclasses import dataclass

from controller.errors import RemoteProtocolError
from runtime.deploy.store import Deployed
from runtime.mec.bundles import DRAIN_S, Bundles
from runtime.protocol import wire
from runtime.protocol.mec_session import Admit, MecSession, Refused, SendTo


@dataclass(frozen=True)
class Stub:
    """What serves a bundle, without models."""

    held: wire.Held


def held(letter: str, workload: str = "garments") -> wire.Held:
    return wire.Held(workload, letter * 64, "e" * 64)


def bundles_of(deployed: dict[str, Deployed]) -> Bundles:
    return Bundles([Stub(held("a"))], lambda: deployed)  # type: ignore[list-item]


def test_a_release_drains_when_it_is_neither_current_nor_previous() -> None:
    deployed = {"net": Deployed("1")}
    bundles = bundles_of(deployed)
    for number, letter in (("1", "b"), ("2", "c"), ("3", "d")):
        bundles.add(number, Stub(held(letter)))  # type: ignore[arg-type]
    deployed["net"] = Deployed("3", "2")
    roles = {one: bundles.role(one) for one in bundles.held}
    assert roles == {held("a"): "base", held("b"): "draining", held("c"): "previous", held("d"): "current"}
    assert bundles.drop_unused([held("b")], 0.0) == []
    assert bundles.drop_unused([held("b")], 2 * DRAIN_S) == []
    assert bundles.drop_unused([], 3 * DRAIN_S - 1.0) == []  # its devices left a while ago
    assert bundles.drop_unused([], 3 * DRAIN_S + 1.0) == [held("b")]
    assert bundles.get(held("b")) is None
    assert bundles.releases == {"2", "3"}
    assert bundles.drop_unused([], 1e9) == []


def test_a_release_with_the_bundle_of_the_mec_itself_changes_nothing() -> None:
    bundles = bundles_of({"net": Deployed("1")})
    own = bundles.get(held("a"))
    bundles.add("1", Stub(held("a")))  # type: ignore[arg-type]
    assert bundles.get(held("a")) is own
    assert bundles.role(held("a")) == "base"


def test_each_request_belongs_to_the_bundle_of_its_device() -> None:
    session = MecSession("mec-1", [held("a"), held("b")], 1.0)
    for peer, letter in ((b"1", "a"), (b"2", "b")):
        (welcome,) = session.receive(peer, wire.Hello("x", held(letter)), b"", 0.0)
        assert welcome == SendTo(peer, wire.Welcome("mec-1", held(letter), 1.0))
        (admitted,) = session.receive(peer, wire.InferRequest(1, 0, 9), b"x", 0.0)
        assert isinstance(admitted, Admit)
        assert admitted.held == held(letter)


def test_a_device_with_another_bundle_is_told_the_nearest_difference() -> None:
    session = MecSession("mec-1", [held("a", "campus"), held("b")], 1.0)
    reject, refused = session.receive(b"1", wire.Hello("x", held("c")), b"", 0.0)
    assert isinstance(reject, SendTo)
    assert isinstance(reject.message, wire.Reject)
    assert "two bundles of workload garments" in reject.message.text
    assert refused == Refused("it holds another bundle of workload garments")


def test_a_device_whose_bundle_is_served_no_more_must_say_hello_anew() -> None:
    session = MecSession("mec-1", [held("a"), held("b")], 1.0)
    session.receive(b"1", wire.Hello("x", held("b")), b"", 0.0)
    session.serve([held("a")])
    (rejected,) = session.receive(b"1", wire.InferRequest(1, 0, 9), b"x", 1.0)
    assert isinstance(rejected, SendTo)
    assert isinstance(rejected.message, wire.Reject)
    assert rejected.message.reason is wire.RejectReason.NO_SESSION
    assert session.malformed(b"1", RemoteProtocolError("x")) == []
