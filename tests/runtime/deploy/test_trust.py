"""Signed metadata: what is not signed, is older, or has expired is refused, also after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.releases import Operator, release_of

from controller.errors import FailureError, UsageError
from runtime.deploy.release import encode_release
from runtime.deploy.trust import Proposal, Verifier, decode_proposal


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator.new(tmp_path / "repository")


def verifier(tmp_path: Path, operator: Operator) -> Verifier:
    return Verifier(tmp_path / "trusted", operator.root)


def proposal(operator: Operator, content: bytes, days: float = 1.0) -> Proposal:
    return decode_proposal(operator.proposal(release_of("net", [content])[0], days))


def test_a_replay_of_older_metadata_is_refused_also_after_a_restart(tmp_path: Path, operator: Operator) -> None:
    old, new = proposal(operator, b"1"), proposal(operator, b"2")
    assert verifier(tmp_path, operator).verify(old).name == "net"
    assert verifier(tmp_path, operator).verify(new).files[0].length == 1
    with pytest.raises(FailureError, match="New timestamp version 1 must be >= 2"):
        Verifier(tmp_path / "trusted", None).verify(old)
    mixed = Proposal("net", new.metadata | {k: v for k, v in old.metadata.items() if "targets" in k}, old.release)
    with pytest.raises(FailureError, match="does not match expected hash"):
        verifier(tmp_path, operator).verify(mixed)
    assert verifier(tmp_path, operator).verify(new) == verifier(tmp_path, operator).verify(new)


def test_expired_metadata_are_refused(tmp_path: Path, operator: Operator) -> None:
    with pytest.raises(FailureError, match=r"expired.*push again"):
        verifier(tmp_path, operator).verify(proposal(operator, b"1", days=-1.0))


def test_metadata_of_another_key_are_refused(tmp_path: Path, operator: Operator) -> None:
    stranger = Operator.new(tmp_path / "stranger")
    with pytest.raises(FailureError, match="signed by other keys than those of the trusted"):
        verifier(tmp_path, operator).verify(proposal(stranger, b"1"))


def test_changed_metadata_and_changed_releases_are_refused(tmp_path: Path, operator: Operator) -> None:
    good = proposal(operator, b"1")
    checker = verifier(tmp_path, operator)
    for name, data in good.metadata.items():
        if name.endswith("root.json"):
            continue  # the trusted one is there already
        assert b'"_type"' in data
        changed = good.metadata | {name: data.replace(b'"expires":"2', b'"expires":"3')}
        with pytest.raises(FailureError, match="refused"):
            checker.verify(Proposal("net", changed, good.release))
        missing = {other: data for other, data in good.metadata.items() if other != name}
        with pytest.raises(FailureError, match="lacks signed metadata"):
            Verifier(tmp_path / f"other-{name}", operator.root).verify(Proposal("net", missing, good.release))
    other = encode_release(release_of("net", [b"2"])[0])
    with pytest.raises(FailureError, match=r"does not match expected hash|Length"):
        checker.verify(Proposal("net", good.metadata, other))
    with pytest.raises(FailureError, match="name no release for 'else'"):
        checker.verify(Proposal("else", good.metadata, good.release))
    assert checker.verify(good).name == "net"


def test_the_root_is_needed_once_and_a_new_one_begins_anew(tmp_path: Path, operator: Operator) -> None:
    with pytest.raises(UsageError, match="--trust"):
        Verifier(tmp_path / "trusted", None)
    with pytest.raises(UsageError, match="No such file"):
        Verifier(tmp_path / "trusted", tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(UsageError, match="not root metadata"):
        Verifier(tmp_path / "trusted", tmp_path / "bad.json")
    verifier(tmp_path, operator).verify(proposal(operator, b"1"))
    successor = Operator.new(tmp_path / "successor")
    verifier(tmp_path, successor).verify(proposal(successor, b"1"))
    with pytest.raises(FailureError):
        Verifier(tmp_path / "trusted", None).verify(proposal(operator, b"3"))


def test_an_interrupted_push_signs_the_same_again(operator: Operator) -> None:
    assert proposal(operator, b"1") == proposal(operator, b"1")


def test_a_signing_key_that_others_can_read_is_refused(operator: Operator) -> None:
    (operator.folder / "deploy.pem").chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        proposal(operator, b"1")


def test_a_crash_while_trust_begins_anew_forgets_nothing(
    tmp_path: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = proposal(operator, b"1"), proposal(operator, b"2")
    verifier(tmp_path, operator).verify(new)
    successor = Operator.new(tmp_path / "successor")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("runtime.deploy.trust.write_whole", crash)
        with pytest.raises(KeyboardInterrupt):
            verifier(tmp_path, successor)
    with pytest.raises(FailureError, match="New timestamp version 1 must be >= 2"):
        Verifier(tmp_path / "trusted", None).verify(old)
    verifier(tmp_path, successor).verify(proposal(successor, b"1"))
    with pytest.raises(FailureError, match="New timestamp version 1 must be >= 2"):
        verifier(tmp_path, operator).verify(old)  # also when trust goes back to the keys before
