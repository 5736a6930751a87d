"""Make names and URLs safe to log: mask credentials, escape control characters, keep one line."""

from __future__ import annotations

import re
from pathlib import Path

MASK = "***"
LONGEST = 300
#: User info of a URL, up to the last @: people do not escape @, / and ? in passwords. One slash is enough, so a typing
#: error does not print the password.
_USER_INFO = re.compile(r"(:/{1,3})\S*(?=@)")
#: User info without a scheme: user:password@host.
_BARE_USER_INFO = re.compile(r"(?<![^\s'\"])[^\s/:@]+:[^\s/]\S*(?=@)")
#: A parameter whose name says that its value is secret: ?password=..., &token=..., _pwd=...
_SECRET = re.compile(
    r"(?<![a-z0-9])([\w.-]*?(?:pas|pwd|psw|user|usr|login|token|secret|key|auth|sig|cred|session)[\w.-]*)=[^&;\s]*",
    re.I,
)


def shown(text: str | Path) -> str:
    """The text with credentials masked, control characters and invalid bytes escaped, and at most 300 characters."""
    line = str(text).encode("utf-8", "backslashreplace").decode()
    line = _BARE_USER_INFO.sub(MASK, _USER_INFO.sub(rf"\1{MASK}", line)) if "@" in line else line
    line = _SECRET.sub(rf"\1={MASK}", line) if "://" in line or "?" in line else line
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
