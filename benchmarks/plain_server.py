"""What a team would write without this project: FastAPI and torch, each candidate with a copy of its user's row.

    PLAIN_SERVER='{"model": "exports/rm1", "threads": 1, "batch": 4}' uvicorn plain_server:app --workers 2

Each worker process computes in one thread of its own, as a worker of TorchServe does. ``batch`` above 1 joins requests
that come within ``WAIT_S`` of each other, up to so many (TorchServe: batch_size and max_batch_delay).
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import orjson
import torch
from fastapi import FastAPI, Request, Response

from recd_dist.exported.exported_model import ExportedModel

OPTIONS = json.loads(os.environ.get("PLAIN_SERVER", "{}"))
WAIT_S = 0.005


class Plain:
    """A model, the thread that computes, and the requests that wait for it."""

    def __init__(self) -> None:
        torch.set_num_threads(OPTIONS["threads"])
        self.model = ExportedModel.load(OPTIONS["model"])
        self.thread = ThreadPoolExecutor(1)
        self.waiting: asyncio.Queue[tuple[bytes, asyncio.Future[bytes]]] = asyncio.Queue()

    def compute(self, bodies: list[bytes]) -> list[bytes]:
        """From JSON to JSON, for some requests in one batch of expanded rows."""
        read = [orjson.loads(body) for body in bodies]
        requests = [self.model.read(request["user"], request["candidates"]) for request in read]
        names = [task.name for task in self.model.description.tasks]
        return [
            orjson.dumps({"scores": dict(zip(names, scores.T.tolist(), strict=True))})
            for scores in self.model.score(requests, dedup=False)
        ]

    async def join_requests(self) -> None:
        """Computes what waits, some requests at a time."""
        while True:
            joined = [await self.waiting.get()]
            end = asyncio.get_running_loop().time() + WAIT_S
            while len(joined) < OPTIONS["batch"]:
                try:
                    left = end - asyncio.get_running_loop().time()
                    joined.append(await asyncio.wait_for(self.waiting.get(), left))
                except TimeoutError:
                    break
            bodies = [body for body, _ in joined]
            answers = await asyncio.get_running_loop().run_in_executor(self.thread, self.compute, bodies)
            for (_, future), answer in zip(joined, answers, strict=True):
                future.set_result(answer)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Loads the model before the first request."""
    app.state.plain = Plain()
    joining = asyncio.create_task(app.state.plain.join_requests())
    yield
    joining.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/health/ready")
async def ready() -> dict[str, Any]:
    """The model is loaded."""
    return {}


@app.post("/v1/score")
async def score(request: Request) -> Response:
    """Scores the candidates of one user."""
    plain, loop = app.state.plain, asyncio.get_running_loop()
    body = await request.body()
    if OPTIONS["batch"] > 1:
        future: asyncio.Future[bytes] = loop.create_future()
        await plain.waiting.put((body, future))
        answer = await future
    else:
        answer = (await loop.run_in_executor(plain.thread, plain.compute, [body]))[0]
    return Response(answer, media_type="application/json")
