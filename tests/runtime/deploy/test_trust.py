"""Signed metadata: what is not signed, is older, or has expired is refused, also after a restart."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.releases import Operator, release_of

from controller.errors import FailureError, UsageError
from runtime.deploy.release import encode_release
from runtime.deploy.repository import Repository
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


def test_who_trusts_an_old_root_follows_the_chain_to_the_newest_keys(tmp_path: Path, operator: Operator) -> None:
    first = tmp_path / "first.json"
    first.write_bytes(operator.root.read_bytes())
    running = Verifier(tmp_path / "trusted", first)
    old = proposal(operator, b"1")
    assert running.verify(old).name == "net"
    repository = Repository(operator.folder)
    assert [path.name for path in repository.rotate(new_root=True)] == ["deploy.pem", "root.pem"]
    moved = (operator.folder / "root-2.pem").rename(tmp_path / "safe.pem")
    assert "deploy-2.pem" in [path.name for path in repository.rotate(moved)]
    new = proposal(operator, b"2")
    assert {"1.root.json", "2.root.json", "3.root.json"} <= set(new.metadata)
    assert Verifier(tmp_path / "late", first).verify(new) == running.verify(new)  # over both roots at once
    assert set(running.accepted()) == set(new.metadata)
    with pytest.raises(FailureError):
        running.verify(old)
    assert Verifier(tmp_path / "from-the-newest", operator.root).verify(new).name == "net"
    gap = {name: data for name, data in new.metadata.items() if name != "2.root.json"}
    with pytest.raises(FailureError, match="refused"):
        Verifier(tmp_path / "gap", first).verify(Proposal("net", gap, new.release))


def test_a_root_that_a_stranger_signed_is_refused(tmp_path: Path, operator: Operator) -> None:
    checker = verifier(tmp_path, operator)
    good = proposal(operator, b"1")
    stranger = Operator.new(tmp_path / "stranger")
    Repository(stranger.folder).rotate(new_root=True)
    theirs = proposal(stranger, b"1")
    with pytest.raises(FailureError, match="refused"):
        checker.verify(Proposal("net", theirs.metadata, theirs.release))
    assert checker.verify(good).name == "net"  # nothing of it was remembered
    with pytest.raises(FailureError, match="is not the root key"):
        Repository(operator.folder).rotate(stranger.folder / "root-2.pem")


def test_the_old_deploy_key_signs_nothing_that_is_accepted_after_a_rotation(tmp_path: Path, operator: Operator) -> None:
    checker = verifier(tmp_path, operator)
    stolen = tmp_path / "stolen"
    shutil.copytree(operator.folder, stolen)
    (stolen / "root.pem").unlink()
    checker.verify(proposal(operator, b"1"))
    Repository(operator.folder).rotate()
    checker.verify(proposal(operator, b"1"))
    with pytest.raises(FailureError):
        checker.verify(proposal(Operator(stolen), b"2"))


def test_a_rotation_that_was_interrupted_between_its_keys_and_its_root_is_done_again(
    tmp_path: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = verifier(tmp_path, operator)
    checker.verify(proposal(operator, b"1"))
    moved = (operator.folder / "root.pem").rename(tmp_path / "safe.pem")
    with monkeypatch.context() as patched:
        patched.setattr("runtime.deploy.repository.write_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Repository(operator.folder).rotate(moved, new_root=True)
    assert checker.verify(proposal(operator, b"2")).name == "net"  # the old keys still count
    old = Repository(operator.folder).rotate(moved, new_root=True)
    assert old == [operator.folder / "deploy.pem", moved]  # not the new ones, whose files were there before
    for path in old:
        path.unlink()
    assert checker.verify(proposal(operator, b"3")).name == "net"


def test_a_rotation_that_was_interrupted_before_it_signed_anew_is_completed_by_the_next_push(
    tmp_path: Path, operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = verifier(tmp_path, operator)
    checker.verify(proposal(operator, b"1"))
    with monkeypatch.context() as patched:
        patched.setattr(Repository, "_publish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Repository(operator.folder).rotate()
    assert checker.verify(proposal(operator, b"1")).name == "net"
