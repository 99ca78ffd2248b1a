"""Spans around calls, through opentelemetry-api where it is installed, and nothing otherwise.

A span carries a name, counts, the bundle's fingerprint and the kind of database; never text, a user's, an event's or
a tenant's name, or a message of an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from mrm_sdk.version import __version__

if TYPE_CHECKING:
    from contextvars import Token

    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

# What a result of a client's method is counted by, where it has it.
_COUNTED = ("accepted", "duplicates", "rejected", "comparisons", "ratings", "items", "users", "rows")


class Traced(Protocol):
    """What :func:`traced` asks of the object whose methods it traces."""

    def _span_attributes(self) -> Mapping[str, str]:
        """What each of its spans carries; asked only where a span is recorded."""


_Self = TypeVar("_Self", bound=Traced)
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def traced(
    method: Callable[Concatenate[_Self, _Arguments], _Result],
) -> Callable[Concatenate[_Self, _Arguments], _Result]:
    """Runs a method in a span ``mrm_sdk.<its name>``, with counts of what it returned."""
    name = method.__name__

    @functools.wraps(method)
    def call(self: _Self, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        tracer = _tracer()
        if tracer is None:
            return method(self, *args, **kwargs)
        with _Opened(tracer, name) as span:
            if span.is_recording():
                span.set_attributes(self._span_attributes())
            result = method(self, *args, **kwargs)
            if span.is_recording():
                span.set_attributes(_named(_counts(name, result)))
            return result

    return call


def span(name: str, **counts: int) -> AbstractContextManager[object]:
    """Runs a block in a span ``mrm_sdk.<name>``; not around a ``yield``, whose caller would become part of it.

    Args:
        name: of the work.
        counts: attributes, as ``mrm_sdk.<key>``.
    """
    tracer = _tracer()
    return nullcontext() if tracer is None else _Opened(tracer, name, counts)


class _Opened:
    """One span, current while its block runs.

    The interface's own ``start_as_current_span`` costs twice as much if no exporter listens, and writes the messages of
    errors into the span.
    """

    __slots__ = ("_counts", "_name", "_span", "_token", "_tracer")

    def __init__(self, tracer: Tracer, name: str, counts: Mapping[str, int] | None = None) -> None:
        self._tracer, self._name, self._counts = tracer, name, counts
        self._token: Token[Context] | None = None

    def __enter__(self) -> Span:
        from opentelemetry import context, trace

        span = self._span = self._tracer.start_span(f"mrm_sdk.{self._name}")
        if self._counts and span.is_recording():
            span.set_attributes(_named(self._counts))
        # One that is not sampled is current too, so that what is within it is not sampled either.
        if span.get_span_context().is_valid:
            self._token = context.attach(trace.set_span_in_context(span))
        return span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            from opentelemetry import context

            context.detach(self._token)
        if isinstance(error, Exception) and self._span.is_recording():
            from opentelemetry.trace import StatusCode

            # Its kind alone: an error's message, and those of the errors that caused it, which a recorded exception
            # tells in full, may quote event ids and what a driver says of a row.
            self._span.set_attribute("error.type", f"{type(error).__module__}.{type(error).__qualname__}")
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


@functools.cache
def _tracer() -> Tracer | None:
    """Looked up at the first call, for importing the package must load nothing.

    Where the host has set no provider yet, this one asks for it again at each span.
    """
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace.get_tracer("mrm_sdk", __version__)


def _counts(method: str, result: Any) -> dict[str, int]:
    if isinstance(result, dict):  # everything of a user, or many users' reward models, one of them called anything
        counts = result.get("counts")
        return {"rows": sum(counts.values())} if isinstance(counts, dict) else {"users": len(result)}
    counted = {name: getattr(result, name) for name in _COUNTED if hasattr(result, name)}
    if not counted and isinstance(result, list):
        if method == "users":  # a page of ids, which may be empty
            return {"users": len(result)}
        # Scores of many requests, each of several responses, or ranked responses.
        return {"responses": sum(len(part) if hasattr(part, "__len__") else 1 for part in result)}
    if not counted and hasattr(result, "__len__"):
        return {"responses": len(result)}
    return {name: _size(value) for name, value in counted.items()}


def _size(value: Any) -> int:
    if isinstance(value, int):
        return value
    return sum(value.values()) if isinstance(value, Mapping) else len(value)


def _named(counts: Mapping[str, int]) -> dict[str, int]:
    return {f"mrm_sdk.{name}": count for name, count in counts.items()}
