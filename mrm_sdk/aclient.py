"""The same client, awaited: every call runs in a worker thread, so the event loop never waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.encoders import Encoder
from mrm_sdk.errors import ClientClosedError
from mrm_sdk.progress import Progress
from mrm_sdk.schemas.feedback import Feedback
from mrm_sdk.schemas.items import AnyResponse, Prompt, ResponseT
from mrm_sdk.schemas.requests import AnyScoreRequest
from mrm_sdk.schemas.results import Forgotten, Pruned, Ranked, Rebuilt, Recorded, UserReward, UserSummary
from mrm_sdk.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

_T = TypeVar("_T")


class AsyncClient:
    """:class:`~mrm_sdk.Client` for asyncio: the same arguments, methods, results and errors.

    Creating one only keeps the arguments. The bundle, which takes up to half a second to read, is read in a worker
    thread by the first call or by ``async with``: what is wrong with the arguments is raised there.

    Example:
        >>> import asyncio
        >>> from mrm_sdk import AsyncClient
        >>> async def main():
        ...     async with AsyncClient("sqlite://", bundle="models/mine") as client:
        ...         return await client.rank("ada", ["A phone book.", "See RFC 1034."], prompt="What is DNS?")
        >>> [ranked.index for ranked in sorted(asyncio.run(main()), key=lambda ranked: ranked.index)]
        [0, 1]
    """

    def __init__(
        self,
        database: str | URL | Engine,
        *,
        bundle: str | Path | Bundle,
        encoder: Encoder | None = None,
        tenant: str = "default",
        remote: str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._make = partial(
            Client, database, bundle=bundle, encoder=encoder, tenant=tenant, remote=remote, settings=settings
        )
        self._made: dict[str, Client] = {}  # no lock, which a fork could copy while it is held
        self._closed = False

    @property
    def bundle(self) -> Bundle:
        """The bundle in use; before the first call, this reads it."""
        return self._client.bundle

    @property
    def _client(self) -> Client:
        if self._closed and not self._made:
            raise ClientClosedError("This client is closed; make a new one.")
        return self._made.get("client") or self._made.setdefault("client", self._make())

    async def _run(self, call: Callable[[Client], _T]) -> _T:
        return await asyncio.to_thread(lambda: call(self._client))

    async def warm_up(self) -> None:
        """See :meth:`mrm_sdk.Client.warm_up`."""
        await self._run(lambda client: client.warm_up())

    async def use(self, bundle: str | Path | Bundle, *, encoder: Encoder | None = None) -> None:
        """See :meth:`mrm_sdk.Client.use`."""
        await self._run(lambda client: client.use(bundle, encoder=encoder))

    async def rebuild(self, *, progress: Progress | None = None) -> Rebuilt:
        """See :meth:`mrm_sdk.Client.rebuild`."""
        return await self._run(lambda client: client.rebuild(progress=progress))

    async def record(self, feedback: Feedback) -> Recorded:
        """See :meth:`mrm_sdk.Client.record`."""
        return await self._run(lambda client: client.record(feedback))

    async def record_many(self, feedback: Iterable[Feedback]) -> Recorded:
        """See :meth:`mrm_sdk.Client.record_many`."""
        return await self._run(lambda client: client.record_many(feedback))

    async def personalize(self, user_id: str) -> UserReward:
        """See :meth:`mrm_sdk.Client.personalize`."""
        return await self._run(lambda client: client.personalize(user_id))

    async def personalize_many(self, user_ids: Iterable[str]) -> dict[str, UserReward]:
        """See :meth:`mrm_sdk.Client.personalize_many`."""
        return await self._run(lambda client: client.personalize_many(user_ids))

    async def score(
        self, user_id: str, responses: Sequence[AnyResponse], *, prompt: Prompt = None
    ) -> NDArray[np.float32]:
        """See :meth:`mrm_sdk.Client.score`."""
        return await self._run(lambda client: client.score(user_id, responses, prompt=prompt))

    async def score_many(self, requests: Iterable[AnyScoreRequest]) -> list[NDArray[np.float32]]:
        """See :meth:`mrm_sdk.Client.score_many`."""
        return await self._run(lambda client: client.score_many(requests))

    async def rank(
        self, user_id: str, responses: Sequence[ResponseT], *, prompt: Prompt = None
    ) -> list[Ranked[ResponseT]]:
        """See :meth:`mrm_sdk.Client.rank`."""
        return await self._run(lambda client: client.rank(user_id, responses, prompt=prompt))

    async def users(self, *, after: str = "", limit: int = 1000) -> list[str]:
        """See :meth:`mrm_sdk.Client.users`."""
        return await self._run(lambda client: client.users(after=after, limit=limit))

    async def summary(self, user_id: str) -> UserSummary:
        """See :meth:`mrm_sdk.Client.summary`."""
        return await self._run(lambda client: client.summary(user_id))

    async def forget(self, user_id: str) -> Forgotten:
        """See :meth:`mrm_sdk.Client.forget`."""
        return await self._run(lambda client: client.forget(user_id))

    async def export_user(self, user_id: str) -> dict[str, Any]:
        """See :meth:`mrm_sdk.Client.export_user`."""
        return await self._run(lambda client: client.export_user(user_id))

    async def prune(self, *, older_than: timedelta | datetime) -> Pruned:
        """See :meth:`mrm_sdk.Client.prune`."""
        return await self._run(lambda client: client.prune(older_than=older_than))

    async def close(self) -> None:
        """See :meth:`mrm_sdk.Client.close`."""
        self._closed = True
        if self._made:
            await self._run(lambda client: client.close())

    async def __aenter__(self) -> Self:
        await self._run(lambda _: None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Async{self._client!r}" if self._made else "AsyncClient(not used yet)"
