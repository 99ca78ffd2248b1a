"""Texts per second on a CPU beside sentence-transformers in PyTorch, and base rewards beside numpy, on the same cores.

Texts: the answers of LLMFAO where ``../shared`` has them, else those of the corpus that ships with the package; and
4,000 short ones, cut from the same.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk import Bundle, Settings
from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.encoders.export.minilm import minilm_folder
from mrm_sdk.encoders.export.pipeline import export_encoder
from mrm_sdk.encoders.folder import EncoderFolder
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.runtime.cpus import available_cpus
from mrm_sdk.simulation.corpus import load_corpus
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.pipeline import train_bundle
from tests.benchmarks.table import median, publish
from tests.benchmarks.watched import resident
from tests.conftest import SHARED, write_embedded_dataset

REPEATS = 3
LAYERS, WIDTH, INNER = 6, 384, 1536  # of all-MiniLM-L6-v2
ROWS, DIMENSION, K, STREAMED = 100_000, 4096, 16, 10_000_000


def answers() -> list[str]:
    """Long texts: 750 answers of language models, or 512 shorter ones."""
    if (SHARED / "llmfao" / "train").is_dir():
        items = read_dataset(SHARED / "llmfao" / "train").items
        return [item.text or "" for item in items][:750]
    return [answer for question in load_corpus() for answer in question.answers]


def short_texts(texts: Sequence[str], count: int = 4000) -> list[str]:
    """Runs of 5 to 30 words."""
    words, rng = " ".join(texts).split(), np.random.default_rng(0)
    starts, lengths = rng.integers(0, len(words) - 30, count), rng.integers(5, 31, count)
    return [" ".join(words[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


def matrix_rate() -> float:
    """Floating-point operations per second of a large matrix product in PyTorch, on all cores."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / median(lambda: a @ b, 9)


def operations(lengths: Sequence[int]) -> float:
    """Floating-point operations that texts of these numbers of tokens need, padding left out."""
    products = 2 * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    return sum(LAYERS * (length * products + 4 * length * length * WIDTH) for length in lengths)


def opened(folder: Path, precision: str) -> OnnxEncoder:
    export_encoder("minilm", folder, precision=precision)  # type: ignore[arg-type]
    exported = EncoderFolder(folder)
    return OnnxEncoder(exported.read, exported.manifest.encoder, settings=Settings())


def encoding(folder: Path) -> list[dict[str, Any]]:
    from sentence_transformers import SentenceTransformer

    peer = SentenceTransformer(str(minilm_folder()), device="cpu")
    peer.max_seq_length = 256
    encoders = {precision: opened(folder / precision, precision) for precision in ("float32", "int8")}
    rows, texts = [], answers()
    for name, chosen in ((f"{len(texts):,} answers", texts), ("4,000 short texts", short_texts(texts))):
        lengths = [min(256, len(ids)) for ids in peer.tokenizer(chosen, truncation=True, max_length=256)["input_ids"]]
        ways: dict[str, Callable[[], NDArray[np.float32]]] = {
            "sentence-transformers, PyTorch": lambda c=chosen: peer.encode(c, show_progress_bar=False),  # type: ignore[misc]
            **{
                f"ours, {precision}": lambda c=chosen, e=encoder: e.encode([(None, text) for text in c])  # type: ignore[misc]
                for precision, encoder in encoders.items()
            },
        }
        vectors = {way: work() for way, work in ways.items()}  # the run that is not counted
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        rates: list[float] = []
        for _ in range(REPEATS):  # in turn: what disturbs the machine disturbs all of them
            rates.append(matrix_rate())
            for way, work in ways.items():
                began = time.perf_counter()
                work()
                seconds[way].append(time.perf_counter() - began)
        expected, slowest = (value["sentence-transformers, PyTorch"] for value in (vectors, seconds))
        for way, times in seconds.items():
            middle = float(np.median(times))
            rows.append(
                {
                    "what": f"{name}: {way}",
                    "per_second": len(chosen) / middle,
                    "ratio": float(np.median(slowest)) / middle,
                    "share": operations(lengths) / middle / float(np.median(rates)),
                    "difference": float(np.abs(vectors[way] - expected).max()),
                    "cosine": float((vectors[way] * expected).sum(1).min()),
                }
            )
    return rows


def base_rewards(folder: Path) -> list[dict[str, Any]]:
    data = write_embedded_dataset(folder / "data", dimension=DIMENSION, users=20)
    train_bundle(
        read_dataset(data),
        folder / "bundle",
        config=TrainingConfig().with_settings(iterations=2, base_functions=K),
    )
    bundle = Bundle(folder / "bundle")
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((ROWS, DIMENSION), dtype=np.float32)
    weight = rng.standard_normal((DIMENSION, K), dtype=np.float32)
    ours, floor = [], []
    for _ in range(REPEATS + 1):
        floor.append(_seconds(lambda: embeddings @ weight))
        ours.append(_seconds(lambda: bundle.base_rewards(embeddings)))
    whole, product = float(np.median(ours[1:])), float(np.median(floor[1:]))
    rows = [
        {"what": f"base rewards, {ROWS:,} x {DIMENSION}, K = {K}", "per_second": ROWS / whole, "ratio": product / whole}
    ]
    before = resident(os.getpid(), "RssAnon")
    most, began = before, time.perf_counter()
    # One call; the rows are the same one, as 160 GB of others would measure the disk.
    repeated = np.broadcast_to(embeddings[0], (STREAMED, DIMENSION))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(bundle.base_rewards, repeated)
        while not call.done():
            most = max(most, resident(os.getpid(), "RssAnon"))
            time.sleep(0.05)
    rate = STREAMED / (time.perf_counter() - began)
    beside = (most - before - call.result().nbytes) / 2**20
    return [*rows, {"what": f"{STREAMED:,} rows in one call", "per_second": rate, "mebibytes": beside}]


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measures, prints and saves."""
    torch.set_num_threads(available_cpus())
    with tempfile.TemporaryDirectory() as scratch:
        rows = encoding(Path(scratch)) + base_rewards(Path(scratch))
    columns = {
        "per_second": ("per second", ",.0f"),
        "ratio": ("times the peer", ".2f"),
        "share": ("of matrix product", ".0%"),
        "difference": ("largest difference", ".1e"),
        "cosine": ("least cosine", ".4f"),
        "mebibytes": ("MiB beside the result", ".0f"),
    }
    publish("encoding", rows, columns)
