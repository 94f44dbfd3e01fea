from __future__ import annotations

import asyncio

import pytest

from motion.standalone.request_guard import RequestGuard


async def _app(scope, receive, send):
    await send({"type": "passed"})


def messages(host, headers, kind="http"):
    """What a server on `host` sends for a request with `headers`."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers]}
    asyncio.run(RequestGuard(_app, host)(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("127.0.0.1", "127.0.0.1:7860"),
        ("127.0.0.1", "LOCALHOST:9000"),
        ("::1", "[::1]:7860"),
        ("studio.local", "studio.local:7860"),
        ("0.0.0.0", "192.168.1.4:7860"),
        ("::", "[fe80::1]:7860"),
    ],
)
def test_requests_for_this_machine_pass_with_and_without_its_origin(host, asked):
    assert messages(host, [("host", asked)]) == [{"type": "passed"}]
    assert messages(host, [("host", asked), ("origin", f"http://{asked}")]) == [{"type": "passed"}]


@pytest.mark.parametrize(
    ("host", "headers", "reason"),
    [
        ("127.0.0.1", [("host", "evil.example:7860")], "Host header must name this machine, got 'evil.example:7860'"),
        ("127.0.0.1", [("host", "192.168.1.4:7860")], "Host header"),
        ("0.0.0.0", [("host", "evil.example")], "Host header"),
        ("127.0.0.1", [("host", "[nothing")], "Host header"),
        ("127.0.0.1", [], "got none"),
        ("127.0.0.1", [("host", "localhost"), ("host", "evil.example")], "Host header"),
        ("127.0.0.1", [("host", "localhost:1"), ("origin", "http://evil.example")], "Origin header must be http://loc"),
        ("127.0.0.1", [("host", "localhost:1"), ("origin", "http://localhost:2")], "Origin header"),
        ("127.0.0.1", [("host", "localhost:1"), ("origin", "null")], "got 'null'"),
    ],
)
def test_other_sites_are_refused_in_one_line(host, headers, reason):
    start, body = messages(host, headers)
    assert start["status"] == 403
    text = body["body"].decode()
    assert reason in text
    assert text.count("\n") == 1
    (closed,) = messages(host, headers, "websocket")
    assert closed["type"] == "websocket.close"
