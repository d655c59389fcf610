"""The servers that `serve.py` compares with: a `transformers` pipeline behind FastAPI, as the
documentation of both has people write it.

    python benchmarks/serve_peers.py plain FOLDER PORT      one text at a time
    python benchmarks/serve_peers.py batching FOLDER PORT   what waits is taken as one batch
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

#: As in `electra-dist serve`.
BATCH = 32
WAIT_SECONDS = 0.002


class Body(BaseModel):
    """Of a request."""

    text: str


def plain(classify: Any) -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    def predict(body: Body) -> Any:
        return classify([body.text])[0]

    return app


def batching(classify: Any) -> FastAPI:
    queue: asyncio.Queue[tuple[str, asyncio.Future[Any]]] = asyncio.Queue()

    async def answer() -> None:
        while True:
            waiting = [await queue.get()]
            await asyncio.sleep(WAIT_SECONDS)
            while not queue.empty() and len(waiting) < BATCH:
                waiting.append(queue.get_nowait())
            texts = [text for text, _ in waiting]
            found = await asyncio.to_thread(classify, texts, batch_size=len(texts))
            for (_, future), one in zip(waiting, found, strict=True):
                future.set_result(one)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(answer())
        yield
        task.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(body: Body) -> Any:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        await queue.put((body.text, future))
        return await future

    return app


if __name__ == "__main__":
    name, folder, port = sys.argv[1:]
    served = pipeline("text-classification", model=folder, device="cpu", top_k=None)
    uvicorn.run(globals()[name](served), port=int(port), log_level="error", access_log=False)
