"""Lets only requests through that this host's own page, or a program of the user's, has sent."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from motion.standalone.local_page import Message

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


class RequestGuard:
    """ASGI middleware against other sites in the user's browser.

    A site can point its own name at this machine (DNS rebinding) or send its visitors' requests here (CSRF). The first
    shows in the Host header, which must name this machine; the second in the Origin header, which, where there is one,
    must be the address that was asked for. The port may be another than the server's: tunnels change it.

    Args:
        app: what answers the requests that pass.
        host: address or name that the server listens on. On all addresses ("0.0.0.0", "::") a Host header may be any
            IP address, which no site can have as its name, or this machine's name.
    """

    def __init__(self, app: Any, host: str = "127.0.0.1") -> None:
        self._app = app
        self._names = {*_THIS_MACHINE, host.lower()}
        self._any_address = _is_wildcard(host)
        if self._any_address:
            self._names.add(socket.gethostname().lower())

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Serve one request, or answer 403."""
        reason = self._refusal(scope) if scope["type"] in ("http", "websocket") else ""
        if not reason:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            body = f"{reason}\n".encode()
            headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Message) -> str:
        """Why the request is not served; empty where it is."""
        asked = [value.decode("latin-1").lower() for name, value in scope["headers"] if name.lower() == b"host"]
        if len(asked) != 1 or not self._is_ours(asked[0]):
            got = ascii(", ".join(asked)[:80]) if asked else "none"
            return f"The Host header must name this machine, got {got}. Open the address that the server has printed."
        for name, value in scope["headers"]:
            origin = value.decode("latin-1").lower()
            if name.lower() == b"origin" and origin not in (f"http://{asked[0]}", f"https://{asked[0]}"):
                return f"The Origin header must be http://{asked[0]}, got {origin[:80]!a}. Use the host's own page."
        return ""

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:  # brackets without an address in them
            return False
        return name in self._names or (self._any_address and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_wildcard(host: str) -> bool:
    return host == "" or (_is_address(host) and ipaddress.ip_address(host).is_unspecified)
