"""Endpoints are checked at once, in one line that says what is expected."""

from __future__ import annotations

import pytest

from controller.errors import UsageError
from runtime.link.endpoint import Endpoint, parse_bind, parse_endpoint


@pytest.mark.parametrize(
    ("text", "endpoint", "numeric"),
    [
        ("tcp://127.0.0.1:5577", Endpoint("127.0.0.1", 5577), True),
        ("tcp://[::1]:1", Endpoint("::1", 1), True),
        ("tcp://[fe80::1%eth0]:65535", Endpoint("fe80::1%eth0", 65535), True),
        ("tcp://mec.example.org:05577", Endpoint("mec.example.org", 5577), False),
        ("tcp://edge-7:5577", Endpoint("edge-7", 5577), False),
        ("tcp://m\u00fcnchen.example:5577", Endpoint("xn--mnchen-3ya.example", 5577), False),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text: str, endpoint: Endpoint, numeric: bool) -> None:
    assert parse_endpoint(text) == endpoint
    assert endpoint.is_numeric is numeric
    assert parse_endpoint(str(endpoint)) == endpoint
    assert str(parse_bind(text)) == str(endpoint)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:5577", "for example tcp://0.0.0.0:5577"),
        ("localhost", "does not start with tcp://"),
        ("http://here:80", "does not start with tcp://"),
        ("tcp://127.0.0.1:99999", "a port from 1 to 65535"),
        ("tcp://127.0.0.1:0", "a port from 1 to 65535"),
        ("tcp://127.0.0.1:80x", "a port from 1 to 65535"),
        ("tcp://127.0.0.1:-5", "a port from 1 to 65535"),
        ("tcp://127.0.0.1:", "a port from 1 to 65535"),
        ("tcp://127.0.0.1", "expected tcp://HOST:PORT"),
        ("tcp://::1:5577", "needs brackets"),
        ("tcp://[::1:5577", "expected tcp://HOST:PORT"),
        ("tcp://[::g]:5577", "not an IPv6 address"),
        ("tcp://300.1.1.1:5577", "not an IPv4 address"),
        ("tcp://:5577", "not a host name"),
        ("tcp://two words:5577", "not a host name"),
        ("tcp://me@host:5577", "not a host name"),
        ("tcp://host:5577/path", "a port from 1 to 65535"),
        ("tcp://" + "a" * 300 + ":5577", "not a host name"),
        ("tcp://*:5577", "has no host"),
        ("", "does not start with tcp://"),
    ],
)
def test_what_is_none_is_refused_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_endpoint(text)
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_mec_may_listen_on_every_address_and_any_port() -> None:
    assert str(parse_bind("tcp://*:*")) == "tcp://*:*"
    assert str(parse_bind("tcp://[::]:*")) == "tcp://[::]:*"
    with pytest.raises(UsageError, match=r"or \* to let the system choose"):
        parse_bind("tcp://127.0.0.1:0")
