"""Where a MEC cannot listen."""

from __future__ import annotations

import pytest

from controller.errors import FailureError, UsageError
from runtime.link.router import Router


@pytest.mark.parametrize("host", ["203.0.113.7", "[2001:db8::7]"])  # of documentation: no machine has them
def test_an_address_that_no_interface_has_yet_is_no_wrong_option(host: str) -> None:
    with pytest.raises(
        FailureError, match=r"no interface of this machine has .* see `ip addr`, or bind tcp://0\.0\.0\.0:5999"
    ):
        Router(f"tcp://{host}:5999")


def test_a_text_that_is_no_endpoint_is_a_wrong_option() -> None:
    with pytest.raises(UsageError, match="expected tcp://HOST:PORT"):
        Router("tcp://203.0.113.7")
