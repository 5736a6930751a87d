"""Remove passwords from names and URLs before they are logged, and keep them on one line."""

from __future__ import annotations

import re
from pathlib import Path

MASK = "***"
LONGEST = 300
#: User info of a URL. It reaches to the last @, for people write passwords that hold @, / and ? as they are.
#: One slash too few is a slip that must not print it.
_USER_INFO = re.compile(r"(:/{1,3})\S*(?=@)")
#: The same without a scheme: user:password@host.
_BARE_USER_INFO = re.compile(r"(?<![^\s'\"])[^\s/:@]+:[^\s/]\S*(?=@)")
#: A value whose name says that it is secret: ?password=..., &token=..., _pwd=...
_SECRET = re.compile(
    r"(?<![a-z0-9])([\w.-]*?(?:pas|pwd|psw|user|usr|login|token|secret|key|auth|sig|cred|session)[\w.-]*)=[^&;\s]*",
    re.I,
)


def shown(text: str | Path) -> str:
    """The text as it may be printed: credentials masked, control characters and broken bytes escaped."""
    line = str(text).encode("utf-8", "backslashreplace").decode()
    line = _BARE_USER_INFO.sub(MASK, _USER_INFO.sub(rf"\1{MASK}", line)) if "@" in line else line
    line = _SECRET.sub(rf"\1={MASK}", line) if "://" in line or "?" in line else line
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
