"""What texts cost that a client has not seen, with the real all-MiniLM-L6-v2: answers, feedback, first calls.

The floor is ONNX Runtime by itself: one run of the bundle's graph on the same tokens, in the same process. Of a first
call it is a new session and its first run. The tokens are made beforehand and not counted.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrm_sdk import Client, Comparison
from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.simulation.corpus import load_corpus
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.pipeline import train_bundle
from tests.benchmarks.bare_encoder import BareEncoder
from tests.benchmarks.table import measure, publish
from tests.conftest import write_text_dataset

PROMPT, USER, ANSWERS = "What is DNS?", "ada", 4
WORDS = (20, 180)
# Calls and bare runs take turns, so that what disturbs the machine disturbs both; some at a time, as the runtime's
# threads go on spinning for a moment after a run.
TURNS, IN_TURN = 5, 8
PROCESSES = 7
A_RUN, A_FIRST_RUN = "a run of ONNX Runtime", "its new session, and a run"
Row = dict[str, Any]


def fresh_texts(words: int) -> Iterator[str]:
    """Stretches of the answers that ship with the package, each with a number of its own."""
    spoken = " ".join(answer for question in load_corpus() for answer in question.answers).split()
    rng, number = np.random.default_rng(words), 0
    while True:
        start = int(rng.integers(0, len(spoken) - words))
        yield " ".join([f"{number}.", *spoken[start : start + words - 1]])
        number += 1


def row(what: str, ours: Sequence[float], floor: Sequence[float] = (), floor_is: str = "", **more: Any) -> Row:
    """A line of the table; times in milliseconds."""
    median = statistics.median(ours)
    line = {"what": what, "median": 1e3 * median, "most": 1e3 * max(ours), **more}
    if not floor:
        return line
    bare = statistics.median(floor)
    return {**line, "bare": 1e3 * bare, "over": 1e3 * (median - bare), "ratio": median / bare, "floor": floor_is}


def calls(client: Client, bare: BareEncoder) -> Iterator[Row]:
    """A client that is warm, and a user with feedback: texts that it has not seen, then the same ones again."""

    def record(user: str, pair: Sequence[str]) -> object:
        return client.record(Comparison(user_id=user, prompt=PROMPT, chosen=pair[0], rejected=pair[1]))

    def score(answers: Sequence[str]) -> object:
        return client.score(USER, answers, prompt=PROMPT)

    bare.open()
    for words in WORDS:
        texts = fresh_texts(words)
        for _ in range(20):
            record(USER, [next(texts), next(texts)])
        ways: dict[str, tuple[int, Callable[[list[str]], object]]] = {
            f"score {ANSWERS} fresh answers": (ANSWERS, score),
            "record a fresh pair": (2, lambda pair: record("bob", pair)),
        }
        for what, (count, work) in ways.items():
            ours, floor, lengths = [], [], []
            for turn in range(TURNS + 1):
                some = [[next(texts) for _ in range(count)] for _ in range(IN_TURN)]
                batches = [bare.tokens(PROMPT, answers) for answers in some]
                times = _seconds(work, some), _seconds(bare.run, batches)
                if turn:  # the first one warms up
                    ours += times[0]
                    floor += times[1]
                    lengths += [batch["attention_mask"].sum(1).mean() for batch in batches]
            yield row(f"{what} of {words} words", ours, floor, A_RUN, tokens=float(np.mean(lengths)))
    seen = [next(texts) for _ in range(ANSWERS)]
    yield row(f"score {ANSWERS} cached answers", measure(lambda: score(seen), 1_000))


def first_calls(bundle: Path, folder: Path) -> Iterator[Row]:
    """A client in a new process, on a new database: its first call, and what ``warm_up()`` takes off it."""
    texts = fresh_texts(WORDS[0])
    asked = json.dumps({"prompt": PROMPT, "answers": [next(texts) for _ in range(ANSWERS)]})
    cold: dict[str, list[float]] = {}
    warm: dict[str, list[float]] = {}
    for number in range(PROCESSES + 1):
        for times, arguments in ((cold, []), (warm, ["warm"])):
            database = folder / f"first-{len(arguments)}-{number}.db"
            program = [sys.executable, "-m", "tests.benchmarks.first_call", str(bundle), str(database), *arguments]
            done = subprocess.run(program, input=asked, stdout=subprocess.PIPE, check=True, text=True)
            for step, seconds in json.loads(done.stdout).items():
                if number:  # the first ones read from the disk what the others find in memory
                    times.setdefault(step, []).append(seconds)
    yield row("a new process: import mrm_sdk, Client(…)", cold["client"] + warm["client"])
    yield row("its first call: score those of 20 words", cold["score"], cold["bare_first"], A_FIRST_RUN)
    yield row("its first call: warm_up()", warm["warm_up"], warm["bare_first"], A_FIRST_RUN)
    yield row("after warm_up(): score those of 20 words", warm["score"], warm["bare_again"], A_RUN)


def _seconds(work: Callable[[Any], object], arguments: Sequence[Any]) -> list[float]:
    times = []
    for argument in arguments:
        began = time.perf_counter()
        work(argument)
        times.append(time.perf_counter() - began)
    return times


def main() -> None:
    """Measures, prints and saves."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle, data = folder / "bundle", read_dataset(write_text_dataset(folder / "data"))
        train_bundle(data, bundle, config=TrainingConfig(base_functions=8))
        with Client(f"sqlite:///{folder / 'fresh.db'}", bundle=bundle) as client:
            rows = list(calls(client, BareEncoder(bundle)))
        rows += first_calls(bundle, folder)
    columns = {
        "median": ("median ms", ".2f"),
        "most": ("most ms", ".2f"),
        "bare": ("bare ms", ".2f"),
        "over": ("over bare", ".2f"),
        "ratio": ("ratio", ".2f"),
        "tokens": ("tokens each", ".0f"),
        "floor": ("bare is", ""),
    }
    publish("fresh", rows, columns)
