"""The endpoints: FastAPI over the engine."""

import asyncio
import mimetypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from msr_adapter.errors import Problem, StageError, UserError
from msr_adapter.version import __version__
from msr_adapter.workflows.serve import page
from msr_adapter.workflows.serve.answers import item_facts, list_answer, rerank_answer, score_answer, user_answer
from msr_adapter.workflows.serve.engine import ServingEngine
from msr_adapter.workflows.serve.gate import CLIENT_GONE
from msr_adapter.workflows.serve.messages import FIELDS, RecommendMessage, RerankMessage, ScoreMessage
from msr_adapter.workflows.serve.refusals import RefusalError, busy, error_response, of_http, of_validation, response_of
from msr_adapter.workflows.serve.request_queue import QueueClosedError, QueueFullError, Ticket
from msr_adapter.workflows.serve.resolve import Resolver
from msr_adapter.workflows.serve.serve_metrics import ServeMetrics
from msr_adapter.workflows.serve.served_data import ServedItems, ServedUsers
from msr_adapter.workflows.serve.settings import ServeSettings
from msr_adapter.workflows.serve.strict_json import StrictRoute
from msr_adapter.workflows.serve.work import ScoredUser, UserWork

_LISTED = 50
_IMAGE_AGE_S = 3600

Words = Annotated[str, Query(max_length=200)]
First = Annotated[int, Query(ge=1, le=200)]


@dataclass(frozen=True)
class ServedRun:
    """All that endpoints answer from."""

    name: str
    items: ServedItems
    users: ServedUsers
    resolver: Resolver
    engine: ServingEngine
    settings: ServeSettings
    metrics: ServeMetrics
    facts: dict[str, Any]
    """What `GET /v1/info` says beside the model."""


class Endpoints:
    """The functions behind the addresses."""

    def __init__(self, run: ServedRun) -> None:
        self._run = run

    async def recommend(self, message: RecommendMessage, request: Request) -> JSONResponse:
        """Rank candidates for a user."""
        resolved = await run_in_threadpool(self._run.resolver.recommend, message)
        [found] = await self._ask([resolved.work], request)
        return JSONResponse(list_answer(message, resolved, found, self._run.items))

    async def score(self, message: ScoreMessage, request: Request) -> JSONResponse:
        """Score pairs of users and items, in their order."""
        work, places = await run_in_threadpool(self._run.resolver.pairs, message.pairs)
        found = await self._ask(work, request)
        return JSONResponse(score_answer(places, found, [one.has_user for one in work]))

    async def rerank(self, message: RerankMessage, request: Request) -> JSONResponse:
        """Rank documents for a query, in Cohere's shape."""
        resolved = await run_in_threadpool(self._run.resolver.rerank, message)
        if not resolved.work.has_user:
            problem = Problem("", "query", "the user has no history", "", "Give a history, or a summary as a text")
            raise RefusalError(422, problem)
        [found] = await self._ask([resolved.work], request)
        return JSONResponse(rerank_answer(message, resolved, found, self._run.items))

    async def user(self, user_id: str, request: Request, summary: bool = True) -> JSONResponse:
        """Tell what is known of a user: the history, and with `summary` what is told of it, block by block."""
        user = self._run.users.find(user_id)
        if user is None:
            raise self._run.resolver.unknown_user(user_id, "user_id")
        found = None
        if summary:
            [found] = await self._ask([UserWork(user.codes, user_id=user_id)], request)
        return JSONResponse(user_answer(user_id, user, found, self._run.items))

    async def find_users(self, query: Words = "", limit: First = _LISTED) -> JSONResponse:
        """Find users by words of their id."""
        found = await run_in_threadpool(self._run.users.search, query, limit)
        users = [{"user_id": self._run.users.ids[place]} for place in found.places]
        return JSONResponse({"total": found.total, "users": users})

    async def find_items(self, query: Words = "", limit: First = _LISTED) -> JSONResponse:
        """Find items by words of their title or id, the most popular first."""
        items = self._run.items
        found = await run_in_threadpool(items.search, query, limit)
        rows = [item_facts(items, place) | {"interactions": int(items.popularity[place])} for place in found.places]
        return JSONResponse({"total": found.total, "items": rows})

    async def image(self, item_id: str) -> Response:
        """Send the image of an item."""
        [place] = self._run.items.places([item_id])
        image = self._run.items.image(int(place)) if place >= 0 else None
        if image is None or not Path(image.path).is_file():
            what = "is not in the catalogue" if place < 0 else "has no image"
            raise RefusalError(404, Problem("", "item_id", f"item {item_id[:60]!r} {what}"))
        kind = mimetypes.guess_type(image.path)[0] or "application/octet-stream"
        headers = {"Cache-Control": f"private, max-age={_IMAGE_AGE_S}", "ETag": f'"{image.digest[:32]}"'}
        return FileResponse(image.path, media_type=kind, headers=headers)

    async def info(self) -> JSONResponse:
        """Tell what is served."""
        return JSONResponse(self._run.facts | {"model": self._run.engine.label, "ready": self._run.engine.ready})

    async def healthz(self) -> JSONResponse:
        """Say that the process lives; 503 once its model is lost."""
        if self._run.engine.failed:
            return error_response(503, [Problem("", "", "the model is lost", "", "Start the server again")])
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> JSONResponse:
        """Say whether requests are answered: the model is loaded and the server is not stopping."""
        state = "stopping" if request.app.state.gate.stopping else "ok" if self._run.engine.ready else "loading"
        return JSONResponse({"status": state}, 200 if state == "ok" else 503)

    async def metrics(self) -> Response:
        """Tell Prometheus."""
        return Response(self._run.metrics.text(), media_type=self._run.metrics.content_type)

    async def _ask(self, work: Sequence[UserWork], request: Request) -> list[ScoredUser]:
        """Have work done by the engine: refused where too much waits, given up where nobody waits."""
        engine, limits = self._run.engine, self._run.settings.limits
        if not engine.ready:
            raise busy(503, "the model is lost" if engine.failed else "the model is being loaded", 2, "not ready")
        try:
            ticket = engine.submit(work)
        except QueueFullError:
            found = f"{limits.queue} requests wait already"
            raise busy(429, found, engine.waiting_s, "queue full") from None
        except QueueClosedError:
            raise busy(503, "the server is stopping", 5, "stopping") from None
        try:
            return await self._wait(ticket, request, limits.timeout_s)
        finally:
            engine.queue.drop(ticket)

    async def _wait(self, ticket: Ticket, request: Request, timeout_s: float) -> list[ScoredUser]:
        answer = asyncio.wrap_future(ticket.future)
        gone = asyncio.ensure_future(_disconnected(request))
        waited: set[asyncio.Future[Any]] = {answer, gone}
        try:
            await asyncio.wait(waited, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if gone.done():
                raise RefusalError(CLIENT_GONE, Problem("", "", "the client disconnected"), reason="client gone")
            step = "Ask for fewer candidates, or start the server with a longer --timeout"
            raise RefusalError(504, Problem("", "", f"no answer within {timeout_s:g} s", "", step), reason="timeout")
        except StageError as error:
            what = f"{error.what} ({error.cause})" if error.cause else error.what
            raise RefusalError(503, Problem("", "", what, "", error.next_step), reason="model") from None
        except UserError as error:
            raise RefusalError(422, list(error.problems)) from None
        finally:
            gone.cancel()
            answer.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def make_app(run: ServedRun) -> FastAPI:
    """Return the application; `/openapi.json` describes it, and no page of it asks another host for anything."""
    app = FastAPI(title=f"msr: {run.name}", version=__version__, docs_url=None, redoc_url=None)
    app.router.route_class = StrictRoute
    points = Endpoints(run)
    posts: dict[str, Callable[..., Any]] = {
        "/v1/recommend": points.recommend, "/v1/score": points.score, "/v1/rerank": points.rerank,
        "/v2/rerank": points.rerank,
    }  # fmt: skip
    for path, function in posts.items():
        app.add_api_route(path, function, methods=["POST"], response_class=JSONResponse, response_model=None)
    gets: dict[str, Callable[..., Any]] = {
        "/v1/info": points.info, "/v1/items": points.find_items, "/v1/items/{item_id:path}/image": points.image,
        "/v1/users": points.find_users, "/v1/users/{user_id:path}": points.user, "/healthz": points.healthz,
        "/readyz": points.readyz, "/metrics": points.metrics,
    }  # fmt: skip
    for path, function in gets.items():
        app.add_api_route(path, function, methods=["GET"], response_model=None)
    page.add_to(app)

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> JSONResponse:
        refusal = of_http(error)
        run.metrics.refused(refusal.reason)
        return response_of(refusal)

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> JSONResponse:
        refusal = of_validation(error, FIELDS)
        run.metrics.refused(refusal.reason)
        return response_of(refusal)

    @app.exception_handler(Exception)
    async def crash(_: Request, error: Exception) -> JSONResponse:
        run.metrics.refused("bug")
        problem = Problem("", "", f"the server failed ({type(error).__name__}); its log has the traceback")
        return error_response(500, [problem])

    return app
