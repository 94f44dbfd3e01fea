"""How the API answers errors: as A1111 does, status and detail being the exception's instance attributes."""

from __future__ import annotations

import logging

from fastapi import FastAPI, HTTPException, Request
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse

from motion.errors import MotionError

logger = logging.getLogger(__name__)


def add_error_handlers(app: FastAPI) -> None:
    """Answer every exception of `app`'s routes with JSON: error, detail, body, errors."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, MotionError):
            logger.warning("%s %s: %s", request.method, request.url.path, error)
        return error_response(error)

    app.add_exception_handler(MotionError, answer)
    app.add_exception_handler(HTTPException, answer)
    app.add_exception_handler(Exception, answer)  # the server logs its traceback besides


def error_response(error: Exception) -> JSONResponse:
    """The answer to a request that failed with `error`; 500 unless the exception's instance says otherwise."""
    attributes = vars(error)
    content = {
        "error": type(error).__name__,
        "detail": attributes.get("detail", ""),
        "body": attributes.get("body", ""),
        "errors": str(error),
    }
    return JSONResponse(status_code=attributes.get("status_code", 500), content=jsonable_encoder(content))
