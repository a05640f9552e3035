"""A model behind an OpenAI-compatible endpoint: vLLM, SGLang, LLaMA-Factory's own API server, or a hosted one."""

import asyncio
import os
from collections.abc import Iterator, Sequence

import httpx

from msr_adapter.backends.retrying import Attempts, GaveUpError, RefusedError, UnusableServerError
from msr_adapter.backends.wire import body, read_answer
from msr_adapter.config.models import ModelRef, Server
from msr_adapter.errors import StageError
from msr_adapter.files import digest
from msr_adapter.generation.request import Answer, Completion, Failure, Follow, Request, ends_there

_HIDDEN = "***"


class ServerBackend:
    """Greedy text over HTTP with bounded concurrency. The key comes from the environment and goes nowhere else.

    Memory: at most `server.concurrency` requests with their images at a time.
    """

    def __init__(self, model: ModelRef) -> None:
        """Take the endpoint from ``model.server``; nothing is sent yet."""
        if model.server is None:
            raise ValueError("backend server needs model.server")
        self.model, self._server = model, model.server
        self.label = f"{model.path} at {self._server.url}"
        self._unreached = 0

    @property
    def identity(self) -> str:
        """Digest of endpoint, served name, revision and system text: all that we know of what answers there."""
        model = self.model
        return digest(["server", self._server.url.rstrip("/"), model.path, model.revision, model.default_system])

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """Answer all requests, and those that ``follow`` adds, in the order asked. What keeps failing is a `Failure`.

        Raises `StageError` for what no retry mends (a refused key, an unknown model) and when nobody answers there.
        """
        if any(request.choices for request in requests):
            raise StageError(
                f"{self.label} was asked to score answers", "a server answers with text, not with probabilities",
                "use a server for the summarisers and a local model for train.model",
            )  # fmt: skip
        self._unreached = 0
        answers = asyncio.run(self._all(requests, follow))
        if answers and self._unreached == len(answers):
            raise StageError(
                f"{self.label}: none of {len(requests)} requests was answered, first: {_reason(answers)}",
                "the server is down, or not where model.server.url says",
                "start it or correct the URL, then run again: what was answered is kept",
            )
        return answers

    async def _all(self, requests: Sequence[Request], follow: Follow) -> list[Answer]:
        key = os.environ.get(self._server.key_variable or "", "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limit = asyncio.Semaphore(self._server.concurrency)
        async with httpx.AsyncClient(headers=headers, timeout=self._server.timeout, follow_redirects=False) as client:
            tasks: list[asyncio.Task[Answer]] = []

            async def one(request: Request) -> Answer:
                answer = await self._one(client, request, limit, key)
                begin(follow(answer))
                return answer

            def begin(more: Sequence[Request]) -> None:
                tasks.extend(asyncio.create_task(one(request)) for request in more)

            begin(requests)
            try:
                return [await task for task in _growing(tasks)]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, client: httpx.AsyncClient, request: Request, limit: asyncio.Semaphore, key: str) -> Answer:
        async with limit:
            try:
                return await Attempts(self._server).run(lambda: self._ask(client, request))
            except GaveUpError as error:
                self._unreached += error.unreached
                return Failure(request.key, _without(key, str(error)))
            except UnusableServerError as error:
                cause, step = error.hint
                raise StageError(f"{self.label}: {_without(key, str(error))}", cause, step) from None

    async def _ask(self, client: httpx.AsyncClient, request: Request) -> Completion:
        try:
            content = body(self.model, request)
        except OSError as error:
            raise GaveUpError(f"image cannot be read: {type(error).__name__}") from None
        async with asyncio.timeout(self._server.timeout):
            response = await client.post(endpoint(self._server), json=content)
        if response.status_code != httpx.codes.OK:
            raise RefusedError.from_response(response)
        return read_answer(request, response)


def endpoint(server: Server) -> str:
    """Return the address that takes chat messages."""
    return f"{server.url.rstrip('/')}/chat/completions"


def _growing(tasks: list["asyncio.Task[Answer]"]) -> Iterator["asyncio.Task[Answer]"]:
    """Yield the tasks, those too that are added meanwhile: a task adds before it ends."""
    place = 0
    while place < len(tasks):
        yield tasks[place]
        place += 1


def _reason(answers: Sequence[Answer]) -> str:
    return next(answer.reason for answer in answers if isinstance(answer, Failure))


def _without(key: str, text: str) -> str:
    """Return ``text`` without the key: some servers repeat it in their refusal."""
    return text.replace(key, _HIDDEN) if key else text
