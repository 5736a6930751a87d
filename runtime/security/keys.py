"""Public and secret keys as text: 40 characters of Z85, the form in which CURVE keys of ZeroMQ are passed on.

The alphabet of Z85 has neither quotes nor spaces, backslashes or underscores, so a key between single quotes is safe in
a shell, and one between double quotes in TOML.
"""

from __future__ import annotations

import hashlib
import re
import struct
from dataclasses import dataclass

import zmq
from zmq.utils import z85

from controller.errors import FailureError, UsageError

KEY_CHARS = 40
#: A name on the list of admitted devices, and of key files.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
#: Ends the name of a file with a public key. No new key ends with it, so a text is either a key or a path.
PUBLIC_SUFFIX = ".pub"
_FINGERPRINT_DIGITS = 16


@dataclass(frozen=True)
class KeyPair:
    """A public key and its secret key, in Z85. The secret one is not part of what is printed."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def check_curve() -> None:
    """FailureError if the installed ZeroMQ cannot encrypt."""
    if not zmq.has("curve"):
        raise FailureError("this ZeroMQ has no CURVE; expected one built with it: pip install --force-reinstall pyzmq")


def new_pair() -> KeyPair:
    """A new pair of keys. The public one begins with a letter or digit, so that no command takes it for an option."""
    check_curve()
    while True:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        if public[0].isalnum() and not public.endswith(PUBLIC_SUFFIX):
            return KeyPair(public, secret)


def pair_of(secret: str) -> KeyPair:
    """The pair of a secret key; UsageError, which does not repeat the text, if it is none."""
    check_curve()
    if not is_key(secret):
        raise UsageError(f"got a secret key that is not {KEY_CHARS} characters of Z85")
    return KeyPair(zmq.curve_public(secret.encode()).decode(), secret)


def is_key(text: str) -> bool:
    """Whether a text has the form of a key: 40 characters of Z85 that stand for 32 bytes."""
    if len(text) != KEY_CHARS or not text.isascii():
        return False
    try:
        z85.decode(text)
    except (KeyError, struct.error):  # a character of another alphabet; five characters beyond 32 bits
        return False
    return True


def fingerprint(public: str) -> str:
    """A digest of a public key, short enough to compare by eye and in hexadecimal digits, which the log folds."""
    return hashlib.sha256(public.encode()).hexdigest()[:_FINGERPRINT_DIGITS]


def checked_name(name: str) -> str:
    """The same name; UsageError if a key cannot have it."""
    if not NAME.fullmatch(name):
        raise UsageError(f"name {name!r}; expected up to 63 letters, digits, dots, dashes and underscores")
    return name
