"""A model behind an OpenAI-compatible endpoint: vLLM, SGLang, LLaMA-Factory's own API server, or a hosted one."""

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence

import httpx

from msr_adapter.backends.http import (
    LASTING,
    Attempts,
    GaveUpError,
    RefusedError,
    UnusableServerError,
    post,
    reading_answer,
)
from msr_adapter.backends.logprobs import ServerScoring
from msr_adapter.backends.openai_messages import body, read_answer
from msr_adapter.config.schema import ModelConfig
from msr_adapter.errors import StageError
from msr_adapter.files import digest
from msr_adapter.generation.request import Answer, Backend, Completion, Failure, Follow, Request, ends_there
from msr_adapter.llamafactory.model_weights import BASE, Weights
from msr_adapter.redaction import quoted, redact


def make(model: ModelConfig, weights: Weights) -> Backend:
    """Return the backend of a served model, for texts."""
    if weights != BASE:
        raise ValueError("a server cannot be handed trained weights")
    return ServerBackend(model)


def make_scorer(served: ModelConfig, trained: ModelConfig, weights: Weights) -> Backend:
    """Return what scores through a server that serves ``trained`` with these ``weights``, as far as they are here."""
    return ServerBackend(served, ServerScoring(served, trained, weights.stamps()))


class ServerBackend(Backend):
    """Greedy text, or log-probabilities of label words or whole texts, over HTTP with bounded concurrency.

    The key comes from the environment and goes nowhere else.

    Memory: at most `server.concurrency` requests with their images at a time.
    """

    def __init__(self, model: ModelConfig, scoring: ServerScoring | None = None) -> None:
        """Take the endpoint from ``model.server``; nothing is sent yet. Only with ``scoring`` it scores."""
        if model.server is None:
            raise ValueError("backend server needs model.server")
        self.model, self._server, self._scoring = model, model.server, scoring
        self._unreached = 0
        self._compared = ""

    @property
    def label(self) -> str:
        """The served name and the address, without what is secret in it."""
        return f"{self.model.path} at {redact(self._server.url)}"

    @property
    def identity(self) -> str:
        """Digest of endpoint, served name, revision and system text: all that we know of what answers there.

        For scoring, also what decides how an answer is found: the trained model and the number of alternatives.
        """
        model = self.model
        known = ["server", self._server.url.rstrip("/"), model.path, model.revision, model.default_system]
        return digest(known if self._scoring is None else [*known, self._scoring.identity])

    def complete(self, requests: Sequence[Request], follow: Follow = ends_there) -> list[Answer]:
        """Answer all requests, and those that ``follow`` adds, in the order asked. What keeps failing is a `Failure`.

        Raises `StageError` for what no retry mends (a refused key, an unknown model) and when nobody answers there.
        """
        if self._scoring is None and any(request.choices for request in requests):
            raise StageError(
                f"{self.label} was asked to score answers", "a server answers with text, not with probabilities",
                "use a server for the summarisers, or name it as evaluate.scorer",
            )  # fmt: skip
        if self._scoring is not None:
            self._scoring.resolve(requests)
        self._unreached = 0
        answers = asyncio.run(self._all(requests, follow))
        if answers and self._unreached == len(answers):
            first = next(answer.reason for answer in answers if isinstance(answer, Failure))
            raise self._nobody_there(f"none of {len(requests)} requests was answered; the first: {first}")
        return answers

    def _nobody_there(self, found: str) -> StageError:
        return StageError(
            f"{self.label}: {found}",
            "the server is down, or not where model.server.url says",
            "start it or correct the URL, then run again: what was answered is kept",
        )

    def _unusable(self, error: UnusableServerError) -> StageError:
        cause, step = error.hint
        return StageError(f"{self.label}: {quoted(error, [self._key])}", cause, step)

    def exactness(self, requests: Sequence[Request] = ()) -> str:
        """Say how log-probabilities are got; see `Remote.exactness`."""
        if self._scoring is None:
            return ""
        if requests and not self._scoring.said:
            self._scoring.resolve(requests)
            asyncio.run(self._all((), ends_there, requests))
        return self._scoring.said

    def compare(self, requests: Sequence[Request]) -> str:
        """Say whether the server's prompts are the trained ones; see `compare_prompts`. Asked once, then remembered."""
        if not self._compared and self._scoring is not None:
            self._compared = self._scoring.compare(requests, _headers(self._key))
        return self._compared

    @property
    def _key(self) -> str:
        return os.environ.get(self._server.key_variable or "", "")

    async def _all(
        self, requests: Sequence[Request], follow: Follow, probed: Sequence[Request] | None = None
    ) -> list[Answer]:
        """Return the answers to all requests and those that follow, in the order asked; an error cancels the rest.

        What the server takes is found out first, by one of ``probed``, the requests themselves unless given.
        """
        key, headers = self._key, _headers(self._key)
        limit = asyncio.Semaphore(self._server.concurrency)
        async with httpx.AsyncClient(headers=headers, timeout=self._server.timeout, follow_redirects=False) as client:
            tasks: list[asyncio.Task[Answer]] = []

            async def one(request: Request) -> Answer:
                answer = await self._one(client, request, limit, key)
                begin(follow(answer))
                return answer

            def begin(more: Sequence[Request]) -> None:
                tasks.extend(asyncio.create_task(one(request)) for request in more)

            await self._find_ways(client, requests if probed is None else probed)
            begin(requests)
            try:
                return [await task for task in _growing(tasks)]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _find_ways(self, client: httpx.AsyncClient, requests: Sequence[Request]) -> None:
        """Find out what the server takes, unless it is known. One that is too busy to tell is tried again later."""
        if self._scoring is None:
            return

        async def send(address: str, content: Mapping[str, object]) -> httpx.Response:
            async def once() -> httpx.Response | RefusedError:
                try:
                    return await self._post(client, address, content)
                except RefusedError as error:
                    if error.status in LASTING:
                        return error
                    raise

            answer = await Attempts(self._server).run(once)
            if isinstance(answer, RefusedError):
                raise answer
            return answer

        try:
            await self._scoring.find_ways(requests, send)
        except GaveUpError as error:
            if error.unreached:
                raise self._nobody_there(quoted(error, [self._key])) from None
        except UnusableServerError as error:
            raise self._unusable(error) from None

    async def _one(self, client: httpx.AsyncClient, request: Request, limit: asyncio.Semaphore, key: str) -> Answer:
        """Return the answer to a request, or its `Failure`. Raises `StageError` for what would meet every request."""
        async with limit:
            try:
                return await Attempts(self._server).run(lambda: self._ask(client, request))
            except GaveUpError as error:
                self._unreached += error.unreached
                return Failure(request.key, quoted(error, [key]))
            except UnusableServerError as error:
                raise self._unusable(error) from None

    async def _ask(self, client: httpx.AsyncClient, request: Request) -> Completion:
        """Send a request once. Raises what `Attempts.run` tries again or gives up on."""
        try:
            if self._scoring and request.choices:
                path, content = self._scoring.query(request)
            else:
                path, content = "chat/completions", body(self.model, request)
        except OSError as error:
            raise GaveUpError(f"image cannot be read: {type(error).__name__}") from None
        response = await self._post(client, f"{self._server.url.rstrip('/')}/{path}", content)
        if self._scoring and request.choices:
            return self._scoring.read(request, response)
        return read_answer(request, response)

    async def _post(self, client: httpx.AsyncClient, address: str, content: Mapping[str, object]) -> httpx.Response:
        """Send JSON once and return the response of status 200. Raises `RefusedError` for any other."""
        with reading_answer("an HTTP response"):
            async with asyncio.timeout(self._server.timeout):
                response = await post(client, address, content)
            if response.status_code != httpx.codes.OK:
                raise RefusedError.from_response(response)
        return response


def _headers(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def _growing(tasks: list["asyncio.Task[Answer]"]) -> Iterator["asyncio.Task[Answer]"]:
    """Yield the tasks, and those that are added while they are awaited: a task adds its followers before it ends."""
    place = 0
    while place < len(tasks):
        yield tasks[place]
        place += 1
