"""``mecpilot keys``: make keys, show them, and edit the list of the devices that a MEC admits.

Keys are printed as plain lines, not in tables: they contain brackets, which tables take for markup.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from controller.errors import UsageError
from runtime.cli.console import write_json
from runtime.cli.shared_options import JsonOut
from runtime.security.allow_list import DEFAULT_NAME, Entry, allow, read_list, revoke, roles_of
from runtime.security.key_files import SECRET_SUFFIX, key_folder, own_names, public_key, read_pair, write_pair
from runtime.security.keys import PUBLIC_SUFFIX, fingerprint

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Keys of devices and MECs, and who is admitted.")

_DIR_HELP = "Folder of the keys; default: $MECPILOT_KEYS, else mecpilot/keys in $XDG_CONFIG_HOME or ~/.config."
NameArgument = Annotated[str, typer.Argument(help="Name of a device or MEC: letters, digits, dots and dashes.")]
Folder = Annotated[Path | None, typer.Option("--dir", help=_DIR_HELP)]
ListFile = Annotated[Path | None, typer.Option("--allow", help=f"The list; default: {DEFAULT_NAME} in that folder.")]


@app.command()
def new(
    name: NameArgument,
    dir: Folder = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a key; peers that know it refuse it.")
    ] = False,
) -> None:
    """Make a pair of keys: NAME.key, which stays on this machine, and NAME.pub. Prints the public key."""
    folder = key_folder(dir, os.environ)
    pair = write_pair(folder, name, overwrite=overwrite)
    print(pair.public)
    typer.echo(
        f"wrote {folder / name}{SECRET_SUFFIX} (secret) and {folder / name}{PUBLIC_SUFFIX}; "
        f"fingerprint {fingerprint(pair.public)}",
        err=True,
    )


@app.command()
def show(
    name: Annotated[str | None, typer.Argument(help="Print only the public key of this name.")] = None,
    dir: Folder = None,
    allow: ListFile = None,
    json: JsonOut = None,
) -> None:
    """The public keys of a folder, and the list of admitted devices, each with its fingerprint.

    With NAME only the public key of that name: of its file, else those on the list."""
    folder = key_folder(dir, os.environ)
    if not folder.is_dir() and (dir is not None or allow is None):
        raise UsageError(f"there is no folder {folder}; `mecpilot keys new NAME --dir {folder}` makes it")
    path = allow or folder / DEFAULT_NAME
    listed = list(read_list(path).by_key.values()) if allow or path.exists() else []
    if name is not None:
        for key in _keys_of(name, folder, listed):
            print(key)
        return
    own = {name: read_pair(folder / f"{name}{SECRET_SUFFIX}").public for name in own_names(folder)}
    document = {
        "folder": str(folder),
        "keys": [{"name": name, "key": key, "fingerprint": fingerprint(key)} for name, key in own.items()],
        "list": str(path),
        "admitted": [_described(entry) for entry in listed],
    }
    if write_json(document, json):
        return
    print(f"keys in {folder}: {len(own)}")
    for name, key in own.items():
        print(f"  {name:<20} {key} {fingerprint(key)}")
    print(f"admitted by {path}: {len(listed)}")
    for entry in listed:
        print(f"  {entry.name:<20} {entry.key} {fingerprint(entry.key)} {','.join(entry.roles)}")


def _keys_of(name: str, folder: Path, listed: list[Entry]) -> list[str]:
    """Public keys of a name: that of its file here, else those on the list."""
    admitted = [entry.key for entry in listed if entry.name == name]
    secret = folder / f"{name}{SECRET_SUFFIX}"
    return admitted if admitted and not secret.exists() else [read_pair(secret).public]


def _described(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "key": entry.key,
        "fingerprint": fingerprint(entry.key),
        "roles": list(entry.roles),
    }


@app.command("allow")
def allow_key(
    name: NameArgument,
    key: Annotated[str, typer.Argument(help="Its public key between single quotes, or the NAME.pub file.")],
    role: Annotated[
        str | None,
        typer.Option("--role", help="device, or operator: may also deploy. Default: as listed, else device."),
    ] = None,
    dir: Folder = None,
    allow_: ListFile = None,
) -> None:
    """Admit a key from now on, also at a MEC that runs. A second key of the same name is added to the first."""
    path = allow_ or key_folder(dir, os.environ) / DEFAULT_NAME
    before = read_list(path).roles.get(name) if path.exists() else None
    entry = allow(path, name, public_key(key), None if role is None else roles_of(role))
    was = "" if before in (None, entry.roles) else f", no longer as {', '.join(before or ())}"
    print(f"{path} admits {entry.name} as {', '.join(entry.roles)}{was} (fingerprint {fingerprint(entry.key)})")


@app.command("revoke")
def revoke_key(
    name: NameArgument,
    key: Annotated[str | None, typer.Option("--key", help="Only this public key, or that of this file.")] = None,
    dir: Folder = None,
    allow: ListFile = None,
) -> None:
    """Admit the keys of a name no more. A MEC that runs drops their messages within a quarter of a second."""
    path = allow or key_folder(dir, os.environ) / DEFAULT_NAME
    if not path.exists():
        raise UsageError(f"there is no list {path}; expected the MEC's list with --allow, or its folder with --dir")
    for entry in revoke(path, name, None if key is None else public_key(key)):
        print(f"{path} admits {entry.name} no more (fingerprint {fingerprint(entry.key)})")
