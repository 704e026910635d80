"""The application: three pages of a server, each a function from a request to an answer."""

import asyncio
import logging
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from resnorm_jax.data import Examples
from resnorm_jax.serving import answers
from resnorm_jax.serving.batcher import Batcher
from resnorm_jax.serving.limits import BUSY, Limits, Refused
from resnorm_jax.serving.questions import Question, Reader, parsed

JSON, FORM = "application/json", "multipart/form-data"
LOG = logging.getLogger("resnorm_jax.serving")


@dataclass
class Service:
    """What the pages share.

    Attributes:
      meta: of the run: name, classes, and what prepares inputs.
      limits: of requests.
      longest: most positions of a row.
      compute: from rows to log-probabilities.
      rows: from prepared examples to rows.
      calibrated: from log-probabilities to those at the run's temperature.
      labels: from log-probabilities to the labels of each row, where a row has any number; or None.
      thresholds: ``[K]``, probabilities from which a row has a label; None where it has one.
      note: what is said of calibration.
      answered: how many requests were answered with predictions.
    """

    meta: dict[str, Any]
    limits: Limits
    longest: int
    compute: Callable[[Any], np.ndarray]
    rows: Callable[[Examples], list[Any]]
    calibrated: Callable[[np.ndarray], np.ndarray]
    note: str
    labels: Callable[[np.ndarray], Sequence[tuple[str, ...]]] | None = None
    thresholds: np.ndarray | None = None
    answered: int = 0
    batcher: Batcher = field(init=False)

    def __post_init__(self) -> None:
        self.batcher = Batcher(self.compute, self.limits.batch, self.limits.queue)
        self.reader = Reader(self.meta, self.limits, self.longest)

    def app(self) -> "Answered":
        """Return the application, whose model is served between its start and its end."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with self.batcher:
                yield

        routes = [
            Route("/", self.index, methods=["GET"]),
            Route("/", self.form, methods=["POST"]),
            Route("/predict", self.predict, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
        ]
        handlers: dict[Any, Any] = {HTTPException: _unknown, Exception: _failed}
        return Answered(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan))

    async def health(self, request: Request) -> Response:
        """Say that the server is there, and how much waits."""
        told = {
            "status": "ok",
            "model": self.meta["name"],
            "classes": self.meta["classes"],
            "waiting": self.batcher.waiting,
            "answered": self.answered,
        }
        return JSONResponse(told, headers=answers.HEADERS)

    async def index(self, request: Request) -> Response:
        """Return the page with an empty form."""
        return self._page([], answers.form(self.meta))

    async def predict(self, request: Request) -> Response:
        """Answer JSON with JSON."""
        try:
            body = await self._body(request, JSON)
            question = await run_in_threadpool(self.reader.json, body)
            found = await self._answers(question)
        except Refused as no:
            line = {"error": no.line, "field": no.field}
            return JSONResponse(line, no.status, {**answers.HEADERS, **no.headers})
        told = {"predictions": found, "calibrated": question.calibrated, "note": self.note}
        return JSONResponse(told, headers=answers.HEADERS)

    async def form(self, request: Request) -> Response:
        """Answer the form with a page."""
        text = pair = ""
        try:
            body = await self._body(request, FORM)
            text, pair, name, content, top = await _fields(request, body)
            question = await run_in_threadpool(self._asked, text, pair, name, content, top)
            found = await self._answers(question)
        except Refused as no:
            shown = answers.form(self.meta, text, pair=pair)
            return self._page([answers.error(no.line)], shown, no.status, no.headers)
        one = text.strip() and self.reader.texts
        titles = (
            [answers.short(f"{text} / {pair}" if pair else text)]
            if one
            else [f"Row {i + 1}" for i in range(len(found))]
        )
        parts = [answers.bars(*pair) for pair in zip(titles, found, strict=True)]
        return self._page(parts, answers.form(self.meta, text, question.top, pair))

    def _asked(self, text: str, pair: str, name: str, content: bytes, top: str) -> Question:
        """Return the question of a form: a text or a pair of them, or numbers, or a file."""
        label = "text" if self.reader.texts else "numbers"
        if bool((text + pair).strip()) == bool(content):
            raise Refused(422, f"give {label}, or a file", label)
        count = self.reader.top(int(top) if top.isascii() and top.isdigit() else top or None)
        if content:
            return Question(self.reader.file(name, content), count, True)
        if self.reader.pairs != bool(pair.strip()):
            line = "give both texts" if self.reader.pairs else "this model reads one text"
            raise Refused(422, line, "pair")
        row: Any = text if self.reader.texts else parsed(text, label)
        row = [text, pair] if self.reader.pairs else row
        return Question(self.reader.rows([row], label), count, True)

    async def _answers(self, question: Question) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(self.limits.timeout):
                found = await self.batcher.log_probs(self.rows(question.examples))
        except TimeoutError:
            line = f"no answer within {self.limits.timeout:g} seconds; try again later"
            raise Refused(504, line, headers=BUSY) from None
        if not np.isfinite(found.max(axis=1)).all():
            row = int(np.argmin(np.isfinite(found.max(axis=1)))) + 1
            raise Refused(422, f"row {row}: the model's output is not finite; rescale it", "rows")
        self.answered += 1
        labels = None if self.labels is None else self.labels(found)
        least = self.thresholds
        if question.calibrated:
            found = self.calibrated(found)
            least = None if least is None else np.exp(self.calibrated(np.log(least)))
        return answers.answers(found, self.meta["classes"], question.top, labels, least)

    async def _body(self, request: Request, wanted: str) -> bytes:
        """Return a request's body, if it is of the type and size, and comes in time."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != wanted:
            raise Refused(415, f"{kind[:80] or 'none'}; send {wanted}", "Content-Type")
        most = self.limits.body
        large = Refused(413, f"over {most} bytes; send less at a time", "body")
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > most):
            raise large
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.timeout):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise large
        except TimeoutError:
            raise Refused(408, f"not here within {self.limits.timeout:g} seconds", "body") from None
        except ClientDisconnect:
            raise Refused(400, "ended early", "body") from None
        return bytes(body)

    def _page(self, parts: Any, shown: Any, status: int = 200, more: Any = None) -> Response:
        text = answers.page(self.meta, self.note, parts, shown)
        return HTMLResponse(text, status, {**answers.HEADERS, **(more or {})})


class Answered:
    """Keeps an error that was answered and logged from the server, whose log would quote it."""

    def __init__(self, app: Starlette) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Do as the application does."""
        try:
            await self.app(scope, receive, send)
        except Exception:
            if scope["type"] != "http":
                raise


async def _fields(request: Request, body: bytes) -> tuple[str, str, str, bytes, str]:
    """Return a form's text or numbers, second text, file's name and content, and number of classes."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, stream(), max_files=1, max_fields=4, max_part_size=len(body) + 1
    )
    try:
        values = await parser.parse()
    except (MultiPartException, KeyError, LookupError, UnicodeError) as error:
        line = getattr(error, "message", "") or "damaged"
        raise Refused(400, f"not a form: {line[:100]}", "body") from None
    name, content = "", b""
    if isinstance(file := values.get("file"), UploadFile):
        name, content = file.filename or "", await file.read()
    fields = {n: v for n, v in values.items() if isinstance(v, str)}
    await values.close()
    text = fields.get("text") or fields.get("numbers") or ""
    return text, fields.get("pair", ""), name, content, fields.get("top", "")


async def _unknown(request: Request, error: Exception) -> Response:
    """Answer a path or a method that there is not."""
    assert isinstance(error, HTTPException)
    headers = {**answers.HEADERS, **(error.headers or {})}
    return JSONResponse({"error": error.detail, "field": ""}, error.status_code, headers)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer what went wrong here without a word of it; the log has where, and no value."""
    where = "".join(traceback.format_tb(error.__traceback__))
    LOG.error("%s\n%s", type(error).__name__, where)
    line = {"error": "something went wrong in the server", "field": ""}
    return JSONResponse(line, 500, answers.HEADERS)
