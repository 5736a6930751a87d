"""Key files: a folder with NAME.key (secret, for its owner only) and NAME.pub (public, to be copied).

A secret file that somebody else can read, or that belongs to another user, is refused: its key may be known. Files
appear whole or not at all, and an existing key is only replaced on request, because the peers that know it would be
locked out.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from controller.errors import FailureError, UsageError
from runtime.files.atomic import sync_folder
from runtime.security.keys import KEY_CHARS, PUBLIC_SUFFIX, KeyPair, checked_name, is_key, new_pair, pair_of

SECRET_SUFFIX = ".key"
PRIVATE_MODE, PUBLIC_MODE, _FOLDER_MODE = 0o600, 0o644, 0o700
_MOST_BYTES = 1 << 20
_SECRET_WORD = "mecpilot-secret-key"


def key_folder(given: Path | None, environment: Mapping[str, str]) -> Path:
    """The folder of this user's keys, unless one is given."""
    if given is not None:
        return given
    if own := environment.get("MECPILOT_KEYS"):
        return Path(own)
    config = environment.get("XDG_CONFIG_HOME")
    return (Path(config) if config else Path("~/.config").expanduser()) / "mecpilot" / "keys"


def write_pair(folder: Path, name: str, *, overwrite: bool = False) -> KeyPair:
    """Make a pair of keys and write its two files. UsageError if a key of that name exists."""
    pair = new_pair()
    secret, public = folder / f"{checked_name(name)}{SECRET_SUFFIX}", folder / f"{name}{PUBLIC_SUFFIX}"
    try:
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        write_file(secret, f"{_SECRET_WORD} {pair.secret}\n", PRIVATE_MODE, overwrite=overwrite)
        write_file(public, f"{pair.public}\n", PUBLIC_MODE, overwrite=True)
    except FileExistsError:
        raise UsageError(f"{secret} exists; expected another name, or --overwrite to replace the key") from None
    except OSError as error:
        raise FailureError(f"cannot write {secret}: {error.strerror or error}; choose another --dir") from error
    return pair


def read_pair(path: Path) -> KeyPair:
    """The pair of a secret key file. UsageError if it is none, or if others may have read it."""
    if path.suffix == PUBLIC_SUFFIX:
        raise UsageError(f"{path} is a public key; expected the secret one, {path.with_suffix(SECRET_SUFFIX)}")
    if not os.path.exists(path) and os.access(path.parent, os.X_OK):
        raise UsageError(
            f"key file {path}: No such file or directory; `mecpilot keys new {path.stem} --dir {path.parent}` makes it"
        )
    text = read_file(path, "key file", private=True)
    word, _, secret = text.strip().partition(" ")
    if word != _SECRET_WORD or not is_key(secret):
        raise UsageError(f"key file {path} holds no secret key; expected a .key file of `mecpilot keys new`")
    return pair_of(secret)


def public_key(text: str) -> str:
    """A public key that is given as itself or as the file that holds it. UsageError if it is neither."""
    if is_key(text) and not text.endswith(PUBLIC_SUFFIX):
        return text
    path = Path(text)
    if path.suffix == SECRET_SUFFIX:
        raise UsageError(
            f"{path} is a secret key, which stays where it is; expected the {PUBLIC_SUFFIX} file beside it"
        )
    if not path.exists():
        raise UsageError(
            f"{text!r} is neither a public key ({KEY_CHARS} characters, as `mecpilot keys show` prints them) nor a file"
        )
    key = read_file(path, "public key file").strip()
    if not is_key(key):
        raise UsageError(f"{path} holds no public key; expected one line of {KEY_CHARS} characters")
    return key


def own_names(folder: Path) -> list[str]:
    """Names of the keys in a folder, sorted."""
    return sorted(path.stem for path in folder.glob(f"*{SECRET_SUFFIX}"))


def read_file(path: Path, what: str, *, private: bool = False) -> str:
    """The text of a file on which trust rests. UsageError if it cannot be read, or if others can change it.

    With ``private`` it must belong to this user, and nobody else may read it.
    """
    try:
        # Without O_NONBLOCK a FIFO would block until somebody writes to it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if why := _distrust(os.fstat(descriptor), path, private):
                raise UsageError(f"{what} {path} {why}")
            data = stream.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} {path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > _MOST_BYTES or not data.isascii():
        raise UsageError(f"{what} {path} is not text of at most {_MOST_BYTES >> 20} MiB")
    return data.decode()


def _distrust(found: os.stat_result, path: Path, private: bool) -> str:
    """Why a file cannot be trusted, with the way out; empty if it can."""
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if private and found.st_uid != os.geteuid():
        user = os.geteuid()
        return f"belongs to user {found.st_uid}, not to user {user}, who runs this; run: chown {user} {path}"
    if private and mode & 0o077:
        return f"can be read or written by others (mode {mode:04o}); run: chmod 600 {path}"
    if mode & 0o022:
        return f"can be written by others (mode {mode:04o}); run: chmod 644 {path}"
    return ""


def write_file(path: Path, text: str, mode: int, *, overwrite: bool) -> None:
    """Write a file with exactly this mode, atomically; FileExistsError if it exists and may not be replaced."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with contextlib.suppress(FileNotFoundError):
        partial.unlink()  # of a process that ended while it wrote
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_MODE)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        if overwrite:
            partial.replace(path)
        else:
            os.link(partial, path)  # unlike a rename, this never replaces a file
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()
