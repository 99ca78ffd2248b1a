"""A FastAPI application: feedback comes in, answers go out in the order of each user's taste.

Run it after ``make demo``, in an environment with fastapi and uvicorn::

    MRM_BUNDLE=mrm-demo/bundle MRM_DATABASE=sqlite:///mrm.db uvicorn --app-dir examples fastapi_app:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from mrm_sdk import AsyncClient, Comparison, Forgotten, InvalidInputError, Ranked, Recorded, Thumb, UserReward


class Question(BaseModel):
    """What is asked, and the answers to choose from."""

    prompt: str
    answers: list[str]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncClient(os.environ["MRM_DATABASE"], bundle=os.environ["MRM_BUNDLE"]) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


def client_of(request: Request) -> AsyncClient:
    client: AsyncClient = request.app.state.client
    return client


Client = Annotated[AsyncClient, Depends(client_of)]


@app.post("/comparisons")
async def compare(comparison: Comparison, client: Client) -> Recorded:
    return await client.record(comparison)


@app.post("/thumbs")
async def thumb(thumb: Thumb, client: Client) -> Recorded:
    return await client.record(thumb)


@app.post("/users/{user_id}/rank")
async def rank(user_id: str, question: Question, client: Client) -> list[Ranked[str]]:
    return await client.rank(user_id, question.answers, prompt=question.prompt)


@app.get("/users/{user_id}")
async def reward(user_id: str, client: Client) -> UserReward:
    return await client.personalize(user_id)


@app.delete("/users/{user_id}")
async def forget(user_id: str, client: Client) -> Forgotten:
    return await client.forget(user_id)


@app.exception_handler(InvalidInputError)
async def invalid(_: Request, error: InvalidInputError) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=422)


# FastAPI's own answer repeats what was sent: users' texts, and numbers that JSON cannot say.
@app.exception_handler(RequestValidationError)
async def unreadable(_: Request, error: RequestValidationError) -> JSONResponse:
    return JSONResponse({"detail": [{"loc": e["loc"], "msg": e["msg"]} for e in error.errors()]}, status_code=422)
