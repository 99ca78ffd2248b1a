"""Spans and log records: what the client says of its work to those who watch it, and that no user is in it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import INVALID_SPAN, StatusCode, get_current_span

from mrm_sdk import tracing
from mrm_sdk.aclient import AsyncClient
from mrm_sdk.bundle import Bundle
from mrm_sdk.client import Client
from mrm_sdk.engine.recording import record_without_features
from mrm_sdk.errors import ConflictError, EncoderError, InvalidInputError, MrmError
from mrm_sdk.schemas.feedback import Comparison, Ranking, Rating, Thumb
from mrm_sdk.schemas.items import Response
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, Store
from mrm_sdk.tracing import span
from tests.small_encoders import CountingEncoder
from tests.test_docs import DOCS, blocks

A, B = Response(embedding=[1, 2, 3, 4, 5, 6]), Response(embedding=[6, 5, 4, 3, 2, 1])
# Those that close and look at things, and open no database.
UNTRACED = {"close"}


class Watched:
    """A host's tracing: its provider, and what it was sent."""

    def __init__(self, **values: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**values)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("mrm_sdk")

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def named(self, name: str) -> ReadableSpan:
        (found,) = [span for span in self.spans if span.name == name]
        return found

    def tree(self) -> list[tuple[str, str | None]]:
        names = {span.context.span_id: span.name for span in self.spans}
        return [(span.name, names[span.parent.span_id] if span.parent else None) for span in self.spans]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    # Not the global provider: that can be set only once, and for all tests of this run.
    watched = Watched()
    monkeypatch.setattr(tracing, "_tracer", lambda: watched.tracer)
    return watched


@pytest.fixture
def client(embedded_bundle: Bundle) -> Iterator[Client]:
    with Client("sqlite://", bundle=embedded_bundle) as client:
        yield client


def prefer(**values: Any) -> Comparison:
    return Comparison(**{"user_id": "ada", "chosen": A, "rejected": B, **values})


class TestSpans:
    def test_every_method_has_one_and_its_counts(
        self, watched: Watched, client: Client, embedded_bundle: Bundle
    ) -> None:
        client.record(prefer(event_id="e1"))
        client.record_many([prefer(event_id="e1"), prefer(), prefer(tie=True), prefer(chosen="text alone")])
        client.personalize("ada")
        client.score("ada", [A, B, A])
        client.personalize_many(["ada", "counts"])
        client.score_many([("ada", [A, B]), ("bob", [A])])
        client.users()
        client.use(embedded_bundle)
        client.rebuild()
        client.summary("ada")
        client.export_user("ada")
        client.prune(older_than=timedelta(days=1))
        client.forget("ada")
        said = {}
        for one in watched.spans:
            attributes = dict(one.attributes or {})
            if one.name not in ("mrm_sdk.adapt", "mrm_sdk.encode"):  # the work within
                assert attributes.pop("db.system.name") == "sqlite"
                assert attributes.pop("mrm_sdk.bundle.fingerprint") == embedded_bundle.fingerprint
            assert one.status.status_code is StatusCode.UNSET
            said[one.name.removeprefix("mrm_sdk.")] = {
                name.removeprefix("mrm_sdk."): value for name, value in attributes.items()
            }
        rows = {name: said[name].pop("rows") for name in ("export_user", "prune", "forget")}
        assert rows["prune"] == 0 < rows["forget"] == rows["export_user"]
        assert said == {
            "record": {"accepted": 1, "duplicates": 0, "rejected": 0},
            "record_many": {"accepted": 2, "duplicates": 1, "rejected": 1},
            "personalize": {"comparisons": 3},
            "adapt": {"comparisons": 3, "ratings": 0},
            "score": {"responses": 3},
            "personalize_many": {"users": 2},
            "score_many": {"responses": 3},
            "users": {"users": 1},
            "use": {},
            "rebuild": {"items": 0, "comparisons": 0, "users": 1},
            "encode": {"items": 2},
            "summary": {"comparisons": 3, "ratings": 0},
            "export_user": {},
            "prune": {},
            "forget": {},
        }

    @pytest.mark.parametrize(
        "name", [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if name[0] != "_"]
    )
    def test_none_is_left_out(self, watched: Watched, client: Client, name: str) -> None:
        """A method that comes later is traced too, or listed here as one that is not."""
        client.close()
        method = getattr(client, name)
        wanted = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
        with suppress(MrmError, TypeError):
            method(*(None for p in wanted if p.kind is not p.KEYWORD_ONLY))
        with suppress(MrmError):
            method(
                *(None for p in wanted if p.kind is not p.KEYWORD_ONLY),
                **{p.name: None for p in wanted if p.kind is p.KEYWORD_ONLY},
            )
        assert (f"mrm_sdk.{name}" in {one.name for one in watched.spans}) == (name not in UNTRACED)

    def test_ranking_holds_scoring(self, watched: Watched, client: Client) -> None:
        client.rank("ada", [A, B])
        assert watched.tree()[:2] == [("mrm_sdk.rank", None), ("mrm_sdk.score", "mrm_sdk.rank")]
        assert (watched.named("mrm_sdk.rank").attributes or {})["mrm_sdk.responses"] == 2

    @pytest.mark.parametrize(("method", "counted"), [("users", "users"), ("score_many", "responses")])
    def test_what_is_counted_when_nothing_came_back(
        self, watched: Watched, client: Client, method: str, counted: str
    ) -> None:
        assert getattr(client, method)(*([[]] if method == "score_many" else [])) == []
        attributes = dict(watched.named(f"mrm_sdk.{method}").attributes or {})
        assert {name: value for name, value in attributes.items() if name.startswith("mrm_sdk.") and value == 0} == {
            f"mrm_sdk.{counted}": 0
        }

    def test_the_awaited_client_nests_under_its_caller(self, watched: Watched, embedded_bundle: Bundle) -> None:
        async def request(client: AsyncClient, name: str) -> None:
            with watched.tracer.start_as_current_span(name):
                await client.record(prefer(user_id=name))
                await client.rank(name, [A, B])

        async def use() -> None:
            async with AsyncClient("sqlite://", bundle=embedded_bundle) as client:
                await asyncio.gather(*(request(client, f"request {n}") for n in range(4)))

        asyncio.run(use())
        for name in (f"request {n}" for n in range(4)):
            within = [child for child, parent in watched.tree() if parent == name]
            assert within == ["mrm_sdk.record", "mrm_sdk.rank"]
            assert watched.named(name).parent is None

    def test_inner_work_nests_and_counts(self, watched: Watched) -> None:
        with span("outer"), suppress(ZeroDivisionError), span("inner", texts=3):
            _ = 1 / 0
        assert watched.tree() == [("mrm_sdk.outer", None), ("mrm_sdk.inner", "mrm_sdk.outer")]
        inner = watched.named("mrm_sdk.inner")
        assert inner.attributes == {"mrm_sdk.texts": 3, "error.type": "builtins.ZeroDivisionError"}
        assert inner.status.status_code is StatusCode.ERROR
        assert watched.named("mrm_sdk.outer").status.status_code is StatusCode.UNSET
        assert get_current_span() is INVALID_SPAN

    def test_an_error_is_told_by_its_kind_alone(self, watched: Watched, client: Client) -> None:
        client.record(prefer(event_id="e1"))
        with pytest.raises(ConflictError):
            client.record(prefer(event_id="e1", tie=True))
        with pytest.raises(InvalidInputError):
            client.rank("", [A])
        failed = [one for one in watched.spans if one.status.status_code is StatusCode.ERROR]
        assert [(one.name, (one.attributes or {})["error.type"]) for one in failed] == [
            ("mrm_sdk.record", "mrm_sdk.errors.ConflictError"),
            ("mrm_sdk.rank", "mrm_sdk.errors.InvalidInputError"),
            ("mrm_sdk.score", "mrm_sdk.errors.InvalidInputError"),
        ]
        assert [(one.status.description, one.events) for one in failed] == [(None, ())] * 3

    def test_leaving_is_no_error(self, watched: Watched) -> None:
        with suppress(KeyboardInterrupt), span("stopped"):
            raise KeyboardInterrupt
        assert watched.named("mrm_sdk.stopped").status.status_code is StatusCode.UNSET

    def test_what_is_not_sampled_holds_nothing_that_is(self, monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
        inside, dropping = Watched(), Watched(sampler=ALWAYS_OFF)
        monkeypatch.setattr(tracing, "_tracer", lambda: dropping.tracer)
        with span("dropped"), inside.tracer.start_as_current_span("of the encoder's server, say"):
            pass
        assert client.score("ada", [A]).shape == (1,)
        assert dropping.spans == inside.spans == []


# A host that sets its provider after the client was used; run with or without the package.
LATE = """
import sys
if sys.argv[2] == "absent":
    class Absent:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "opentelemetry":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Absent())

from mrm_sdk import Client, Response
from mrm_sdk.tracing import span
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
client = Client("sqlite://", bundle=sys.argv[1])
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
client.rank("ada", [Response(embedding=[1] * 6)])
with span("block", texts=1):
    pass
if sys.argv[2] == "absent":
    assert not [name for name in sys.modules if name.startswith("opentelemetry")]
    print("scored")
else:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    client.rank("ada", [Response(embedding=[1] * 6)])
    print([span.name for span in exporter.get_finished_spans() if span.name in ("mrm_sdk.rank", "mrm_sdk.score")])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "said"), [("absent", "scored"), ("installed", "['mrm_sdk.score', 'mrm_sdk.rank']")]
)
def test_without_the_package_and_with_a_provider_that_comes_late(
    embedded_bundle: Bundle, package: str, said: str
) -> None:
    command = [sys.executable, "-W", "error", "-c", LATE, str(embedded_bundle.path), package]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert (done.stderr, done.stdout) == ("", said + "\n")


@pytest.mark.slow
def test_the_snippet_of_the_documentation(embedded_bundle: Bundle) -> None:
    (text,) = [text for text in DOCS.values() if "\n## Tracing\n" in text]
    (snippet,) = blocks(text.partition("\n## Tracing\n")[2], "python")
    use = "import sys, mrm_sdk; mrm_sdk.Client('sqlite://', bundle=sys.argv[1]).rank('ada', [])"
    command = [sys.executable, "-W", "error", "-c", snippet + use, str(embedded_bundle.path)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)
    assert done.stderr == ""
    assert '"name": "mrm_sdk.rank"' in done.stdout


CANARY = "Xq7"


class Talkative(CountingEncoder):
    """Fails on some texts, with an error that quotes them, as third parties do."""

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> np.ndarray:
        for _, response in texts:
            if "breaks" in response:
                raise ValueError(f"cannot encode {response!r}")
        return super().encode(texts)


def session(url: str, bundle: Bundle) -> None:
    """A day of a host: all calls, all kinds of feedback and of failure, each word of it a canary."""
    word = CANARY.__add__
    ada, settings = word("ada"), Settings(half_life=timedelta(days=90))
    client = Client(url, bundle=bundle, encoder=Talkative(), tenant=word("tenant"), settings=settings)
    first = Comparison(
        user_id=ada, event_id=word("e1"), prompt=word("p"), chosen=word("chosen"), rejected=word("rejected")
    )
    chat = [{"role": word("role"), "content": word("content")}]
    client.record(first)
    client.record_many(
        [
            first,
            Comparison(user_id=ada, event_id=word("e2"), prompt=chat, chosen=A, rejected=word("b")),
            Rating(user_id=ada, event_id=word("r"), prompt=word("p"), response=word("c"), value=4),
            Thumb(user_id=ada, event_id=word("t"), prompt=word("p"), response=word("d"), up=True),
            Ranking(user_id=ada, event_id=word("k"), responses=[word("x"), word("y"), word("z")]),
            Comparison(user_id=ada, event_id=word("e1"), chosen=word("other"), rejected=word("content")),
            Comparison(user_id=ada, chosen=Response(embedding=[1.0]), rejected=word("b")),
        ]
    )
    client.rank(ada, [word("x"), word("new")], prompt=word("asked"))
    with closing(Database(url, settings)) as database:
        wide = prefer(user_id=ada, event_id="wide", chosen=Response(text=word("wide"), embedding=[1, 2]))
        list(record_without_features(Store(database, word("tenant")), [wide], 1))
    client.personalize_many([ada, word("unknown")])
    client.score_many([(ada, [word("x")], word("asked")), (word("unknown"), [word("new")])])
    conflict = Comparison(user_id=ada, event_id=word("e1"), chosen=word("other"), rejected=word("content"))
    with pytest.raises(ConflictError):
        client.record(conflict)
    with pytest.raises(EncoderError):
        client.score(ada, [word("breaks")])
    with pytest.raises(InvalidInputError):
        client.score(word("n" * 1000), [A])
    with pytest.raises(InvalidInputError):
        client.score_many([(ada, word("text"))])
    with pytest.raises(InvalidInputError):
        client.rank(ada, [{word("key"): word("value")}])  # type: ignore[list-item]
    client.summary(ada)
    client.export_user(ada)
    client.prune(older_than=datetime.now(UTC) - timedelta(days=1))
    client.forget(ada)
    with pytest.raises(MrmError):
        client.record(first)
    # A row that the database refuses, by a trigger of the host's that says, where it can, what it holds.
    with closing(Database(url, settings)) as database, database.transaction() as connection:
        for statement in REFUSING[database.dialect]:
            connection.exec_driver_sql(statement)
    with pytest.raises(MrmError):
        client.record(prefer(user_id=ada, event_id=word("refused")))
    client.close()
    with pytest.raises(MrmError):
        client.personalize(ada)


REFUSING = {
    "sqlite": ["CREATE TRIGGER refuse BEFORE INSERT ON mrm_comparisons BEGIN SELECT RAISE(ABORT, 'refused'); END"],
    "postgresql": [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN RAISE EXCEPTION ''refused %%'', NEW.event_id; END'",
        "CREATE TRIGGER refuse BEFORE INSERT ON mrm_comparisons FOR EACH ROW EXECUTE FUNCTION refuse()",
    ],
}


class TestNoUserIsSeen:
    @pytest.fixture(params=["sqlite_url", "postgres_url"])
    def url(self, request: pytest.FixtureRequest) -> str:
        """An empty database, whose URL holds a password where it can."""
        url = sa.make_url(request.getfixturevalue(request.param))
        if url.get_backend_name() == "postgresql":
            url = url.set(password=f"{CANARY}password")
        return url.render_as_string(hide_password=False)

    def test_in_a_span(self, url: str, watched: Watched, embedded_bundle: Bundle) -> None:
        session(url, embedded_bundle)
        told = "".join(one.to_json() for one in watched.spans)
        errors = {(one.attributes or {}).get("error.type") for one in watched.spans}
        assert {"mrm_sdk.errors.ConflictError", "mrm_sdk.errors.TextRefusedError"} <= errors
        assert len(watched.spans) >= 15
        assert CANARY not in told

    def test_in_a_log_record(self, url: str, embedded_bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "sqlalchemy")  # statements, but not the rows that hosts ask for with DEBUG
        caplog.set_level(logging.DEBUG)  # the last call is the handler's level too
        session(url, embedded_bundle)
        ours = {one.getMessage() for one in caplog.records if one.name == "mrm_sdk"}
        assert ours == {"event wide is left out: it does not fit the bundle"}
        assert {"sqlalchemy.engine.Engine", "alembic.runtime.migration"} <= {one.name for one in caplog.records}
        assert logging.DEBUG in {one.levelno for one in caplog.records}
        for one in caplog.records:
            assert CANARY not in f"{one.getMessage()} {one.args} {one.exc_text} {vars(one)}", one.name


def test_every_log_record_has_the_name_that_is_documented() -> None:
    root = Path(tracing.__file__).parent
    lines = [line for path in root.rglob("*.py") for line in path.read_text(encoding="utf-8").splitlines()]
    named = [line for line in lines if "getLogger(" in line]
    assert [line for line in named if '"mrm_sdk"' not in line] == [
        '    logger = logging.getLogger("torch.onnx._internal.exporter._registration")'
    ]
