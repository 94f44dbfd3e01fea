"""Keeps the page from reaching for the network."""

from __future__ import annotations

import re
from typing import Any

_FROM_ELSEWHERE = re.compile(
    rb"<link\b[^>]*https?://[^>]*>|<script\b[^>]*\bsrc=\"https?://[^>]*>\s*</script>", re.IGNORECASE
)
_POLICY = b"default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"

Message = dict[str, Any]


class LocalPage:
    """ASGI middleware that takes links to other hosts out of the page and lets the browser load nothing from them.

    Gradio's page names a font service and a script of a content network; without them it looks and works the same.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        begun: Message = {}
        body = bytearray()

        async def send_cleaned(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body", False):
                return
            content = _FROM_ELSEWHERE.sub(b"", bytes(body)) if _is_html(begun) else bytes(body)
            headers = [(name, value) for name, value in begun["headers"] if name.lower() != b"content-length"]
            headers += [(b"content-length", str(len(content)).encode()), (b"content-security-policy", _POLICY)]
            await send({**begun, "headers": headers})
            await send({**message, "body": content})

        await self._app(scope, receive, send_cleaned)


def _is_html(start: Message) -> bool:
    return any(name.lower() == b"content-type" and b"text/html" in value for name, value in start["headers"])
