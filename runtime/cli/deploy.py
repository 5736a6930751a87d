"""``mecpilot deploy``, ``push``, ``status``, ``rollback`` and ``fetch``: releases of bundles and policies."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from controller.errors import FailureError, UsageError
from runtime.cli.console import counted, log_as, task_bar, write_json
from runtime.cli.shared_options import DecoderCode, JsonOut
from runtime.config.sections.fields import DEFAULT_ENDPOINT
from runtime.config.sections.security import SecuritySection
from runtime.config.settings import settings

if TYPE_CHECKING:
    from runtime.deploy.client import MecClient
    from runtime.deploy.store import Store

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Keys and metadata that releases are signed with.")

_SENTENCES = {setting.flag: setting.sentence for setting in settings("security")}

KeyFile = Annotated[Path | None, typer.Option("--key", help="Your secret key file, of `mecpilot keys new`.")]
MecKey = Annotated[str | None, typer.Option("--mec-key", help=_SENTENCES["--mec-key"])]
Plain = Annotated[bool, typer.Option("--plain", help=_SENTENCES["--plain"])]
MecEndpoint = Annotated[str, typer.Option("--mec", help="Endpoint of the MEC.")]
Repository = Annotated[Path, typer.Option("--repository", help="Folder of `mecpilot deploy init`.")]
StoreDir = Annotated[Path | None, typer.Option("--store", help="Folder of a store on this machine.")]
Name = Annotated[str, typer.Argument(help="What it is deployed as.")]

_CHECKED = "{samples} samples were equal, largest difference {largest_difference:.2g}"


@app.callback()
def _deploy() -> None:
    """Keys and metadata that releases are signed with."""


@app.command()
def init(folder: Annotated[Path, typer.Argument(help="Folder to make; keep it secret.")]) -> None:
    """Make signing keys, and the root.json that MECs and devices trust."""
    from runtime.deploy.repository import ROOT_FILE, init_repository

    init_repository(folder)
    print(f"{folder / ROOT_FILE}: give this file to each MEC and device (--trust); it is not secret")
    print(f"{folder}: the rest is; only `mecpilot deploy rotate` needs root.pem again, so move it to a safe place")


@app.command()
def rotate(
    folder: Annotated[Path, typer.Argument(help="Folder of `mecpilot deploy init`.")],
    root_key: Annotated[Path | None, typer.Option(help="The root key, if it is not in the folder any more.")] = None,
    new_root: Annotated[bool, typer.Option("--new-root", help="Replace the root key as well.")] = False,
) -> None:
    """Replace the deploy key. MECs and devices follow at the next push: they need no new root.json."""
    from runtime.deploy.repository import ROOT_FILE, Repository

    for path in Repository(folder).rotate(root_key, new_root):
        print(f"{path}: signs nothing any more; delete it")
    print(f"{folder / ROOT_FILE}: for new MECs and devices; the others follow when you push, or fetch")


def push(
    artifact: Annotated[Path, typer.Argument(help="Folder of a bundle, or a policy file.")],
    mec: MecEndpoint = DEFAULT_ENDPOINT,
    repository: Repository = Path("repository"),
    name: Annotated[
        str | None, typer.Option(help="What it is deployed as. Default: its workload; for a policy WORKLOAD-policy.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option(help="Workload to run a bundle with. Default: the one that it names.")
    ] = None,
    decode: DecoderCode = None,
    days: Annotated[
        float, typer.Option(min=0.05, max=3650, help="How long the signature is good for, in days.")
    ] = 30.0,
    tolerance: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Largest difference of an output in the health check, and share of it."),
    ] = 1e-3,
    key: KeyFile = None,
    mec_key: MecKey = None,
    plain: Plain = False,
) -> None:
    """Sign a bundle or a policy, and bring it to a MEC, which checks it before it serves it."""
    from runtime.decoders.given import give_all
    from runtime.deploy.packing import pack
    from runtime.deploy.release import encode_release
    from runtime.deploy.repository import Repository
    from runtime.deploy.trust import Proposal, encode_proposal

    give_all(decode)
    signing = Repository(repository)
    with tempfile.TemporaryDirectory() as work_dir, _client(mec, key, mec_key, plain) as client:
        packed = pack(artifact, Path(work_dir), name=name, workload=workload, tolerance=tolerance)
        release = packed.release
        metadata = signing.sign(release, days)
        proposal = encode_proposal(Proposal(release.name, metadata, encode_release(release)))
        with task_bar() as progress:
            task = progress.add_task("sending", total=None)
            status = client.push(
                proposal, packed.paths, lambda held, length: progress.update(task, completed=held, total=length)
            )
    deploy = status["deploy"]
    size = f"{counted(len(release.files), 'file')}, {release.total_bytes / 1e6:.1f} MB"
    print(f"{release.name}: release {deploy['release'][:12]} is current ({size}; {_CHECKED.format(**deploy)})")


def status(
    mec: MecEndpoint = DEFAULT_ENDPOINT,
    json: JsonOut = None,
    key: KeyFile = None,
    mec_key: MecKey = None,
    plain: Plain = False,
) -> None:
    """What a MEC serves, to whom, and what became of the last release."""
    from runtime.cli.status_tables import status_tables
    from runtime.observe.tables import table_console

    with _client(mec, key, mec_key, plain) as client:
        found = client.status()
    if not write_json(found, json):
        console = table_console()
        for table in status_tables(found):
            console.print(table)


def rollback(
    name: Name,
    mec: MecEndpoint = DEFAULT_ENDPOINT,
    store: StoreDir = None,
    key: KeyFile = None,
    mec_key: MecKey = None,
    plain: Plain = False,
) -> None:
    """Make the release before the current one current again, on a MEC or in a store on this machine."""
    if store is not None:
        with _opened(store) as opened:
            if name in opened.deployed and opened.deployed[name].previous is None:
                raise FailureError(f"{store}: {name} has no earlier release here; `mecpilot fetch` brings the MEC's")
            opened.rollback(name)
            current = opened.deployed[name].current
    else:
        with _client(mec, key, mec_key, plain) as client:
            deploy = client.rollback(name)["deploy"]
        if deploy["phase"] != "committed":
            raise UsageError(f"{mec}: {deploy['reason']}")
        current = deploy["release"]
    print(f"{name}: release {current[:12]} is current again")


def fetch(
    name: Name,
    store: Annotated[Path, typer.Option("--store", help="Folder to keep releases in.")],
    mec: MecEndpoint = DEFAULT_ENDPOINT,
    trust: Annotated[
        Path | None, typer.Option(help="root.json of `mecpilot deploy init`; needed the first time.")
    ] = None,
    workload: Annotated[str, typer.Option(help="Workload to check a bundle with. Default: the one it names.")] = "",
    decode: DecoderCode = None,
    again: Annotated[bool, typer.Option("--again", help="Also take a release that was rolled back here.")] = False,
    key: KeyFile = None,
    mec_key: MecKey = None,
    plain: Plain = False,
) -> None:
    """Take over what is deployed on a MEC into a store on this machine, as STORE/current/NAME."""
    from runtime.decoders.given import give_all
    from runtime.deploy import fetching
    from runtime.deploy.check import check_release
    from runtime.deploy.trust import Verifier

    give_all(decode)
    with _opened(store) as opened, _client(mec, key, mec_key, plain) as client:
        if trust is None and not any(opened.trusted.glob("*")):
            raise UsageError(
                f"{store} is new; expected --trust with a copy of the operator's root.json, the first time"
            )
        verifier = Verifier(opened.trusted, trust)
        is_new = fetching.fetch(
            client, name, opened, verifier, lambda folder: check_release(folder, workload), again=again
        )
        current = opened.deployed[name].current
    print(f"{store / 'current' / name}: release {current[:12]} is {'now' if is_new else 'already'} current")


@contextmanager
def _client(endpoint: str, key: Path | None, mec_key: str | None, plain: bool) -> Iterator[MecClient]:
    from runtime.deploy.client import MecClient
    from runtime.link.dealer import Dealer
    from runtime.link.lookup import trouble_at
    from runtime.link.mecs.address import addresses_of
    from runtime.security.resolve import with_keys

    security = SecuritySection(key=key, mec_key=mec_key, plain=plain)
    (mec,) = with_keys(addresses_of(endpoint), security, log_as("operator"))
    client = MecClient(Dealer(endpoint, keys=mec.keys), endpoint, why=lambda: trouble_at(mec.endpoint, mec.keys))
    try:
        yield client
    finally:
        client.close()


@contextmanager
def _opened(folder: Path) -> Iterator[Store]:
    from runtime.deploy.store import Store

    store = Store(folder)
    try:
        yield store
    finally:
        store.close()
