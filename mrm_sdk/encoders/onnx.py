"""The encoder that travels in a bundle: tokens -> pooled vector or base rewards."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.bundle import REWARDS, Bundle
from mrm_sdk.bundle.encoder_spec import ENCODER, PROBE_TEXT, EncoderSpec
from mrm_sdk.encoders.batching import token_batches
from mrm_sdk.encoders.tokenization import Tokens, layout
from mrm_sdk.runtime.session import GraphSession
from mrm_sdk.settings import Settings

INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
POOLED: Final = "pooled"
HANDCRAFTED: Final = "handcrafted"

# On a CPU, activations of this many tokens stay in a core's cache: twice as fast as 2,048 (tests/benchmarks/encoding).
_CPU_TOKENS, _GPU_TOKENS = 512, 32_768
# Fewer tokens than this are not worth a thread of their own.
_LEAST_TOKENS = 64


class OnnxEncoder:
    """Encodes a response, or a prompt and a response, with one ONNX graph.

    Args:
        read: returns the verified bytes of a file by its name: the graph, the tokenizer, the chat template. The graph
            has ``input_ids`` and ``attention_mask`` ([batch, tokens] int64) and, where the model has segments,
            ``token_type_ids``; it gives ``pooled`` [batch, D] float32, and, if base rewards are joined to it,
            ``base_rewards`` [batch, K], which take ``handcrafted`` [batch, F] float32 where the bundle has such.
        spec: what the encoder is; without handcrafted features, D is its ``own_dimension``.
        settings: budget of tokens, execution providers, threads.
        folder: where the graph's external data lie, if it has any.
        joined: features hash of the bundle whose base rewards are joined to the graph, and K; ``None`` if none are.

    Raises:
        BundleMismatchError: the tokenizer or the chat template cannot be read, or is another model's.
    """

    def __init__(
        self,
        read: Callable[[Any], bytes],
        spec: EncoderSpec,
        *,
        settings: Settings,
        folder: Path | None = None,
        joined: tuple[str, int] | None = None,
    ) -> None:
        self.dimension, self.fingerprint = spec.own_dimension, spec.model_fingerprint
        self.features_hash: str | None = None if joined is None else joined[0]
        self._base_functions = 0 if joined is None else joined[1]
        self._spec, self._tokens, self._checked_in = spec, settings.encode_tokens, 0
        self._layout = layout(spec, read)
        self._session = GraphSession(
            ENCODER,
            lambda: read(ENCODER),
            frozenset(INPUTS[:2]),
            frozenset([POOLED] if joined is None else [POOLED, REWARDS]),
            settings,
            optional=frozenset([INPUTS[2], HANDCRAFTED]),
            folder=folder,
        )

    @classmethod
    def of(cls, bundle: Bundle) -> OnnxEncoder:
        """Opens the encoder that ``bundle`` carries."""
        manifest = bundle.manifest
        return cls(
            bundle.read,
            manifest.encoder,
            settings=bundle.settings,
            folder=bundle.path,
            joined=(manifest.features, manifest.base_functions) if manifest.fused else None,
        )

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Encodes (prompt or ``None``, response) pairs: n of them -> [n, D].

        Raises:
            BundleMismatchError: the probe text has another vector than when the encoder was exported.
            EncoderError: a text cannot be tokenised, or the graph does not take its tokens.
            OutOfMemoryError: a single text does not fit into memory.
        """
        self._check()
        return self._run(texts, POOLED, self.dimension)

    def base_rewards(
        self, texts: Sequence[tuple[str | None, str]], handcrafted: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Base rewards of (prompt or ``None``, response) pairs, [n, K]: embeddings never leave the device.

        Only where base rewards are joined to the graph.

        Args:
            texts: n of them.
            handcrafted: standardised features [n, F], where the bundle has such.

        Raises:
            BundleMismatchError, EncoderError, OutOfMemoryError: as for ``encode``.
        """
        self._check()
        return self._run(texts, REWARDS, self._base_functions, handcrafted)

    def _check(self) -> None:
        """Compares the probe text's vector, once in every process."""
        if self._checked_in != os.getpid():
            if self._spec.probe is not None:
                vector = self._run([PROBE_TEXT], POOLED, self.dimension)[0]
                self._spec.probe.check(vector, f"The encoder {self._spec.name}")
            self._checked_in = os.getpid()

    def _run(
        self,
        texts: Sequence[tuple[str | None, str]],
        output: str,
        width: int,
        handcrafted: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        out = np.empty((len(texts), width), np.float32)
        if not texts:
            return out
        tokens = self._layout(texts)
        lengths = [len(row.ids) for row in tokens]
        needed = self._session.inputs

        def prepare(rows: NDArray[np.intp]) -> Mapping[str, NDArray[Any]]:
            inputs: dict[str, NDArray[Any]] = dict(zip(INPUTS, padded([tokens[row] for row in rows]), strict=True))
            if handcrafted is not None:
                inputs[HANDCRAFTED] = handcrafted[rows]
            elif HANDCRAFTED in needed:  # asked for ``pooled``, which does not depend on them
                inputs[HANDCRAFTED] = np.zeros((len(rows), self._handcrafted_count), np.float32)
            return {name: array for name, array in inputs.items() if name in needed}

        self._session.fill(out, token_batches(lengths, self._budget(sum(lengths))), prepare, output)
        return out

    @property
    def _handcrafted_count(self) -> int:
        return self._spec.dimension - self._spec.own_dimension

    def _budget(self, total: int) -> int:
        if self._spec.precision == "int8":
            return 1  # activations are rounded with one range per run: alone, a text's vector is always the same
        most = self._tokens or (_CPU_TOKENS if self._session.on_cpu else _GPU_TOKENS)
        threads = self._session.threads
        # A request of a few texts is shared by all threads too; where there is one, a second run would only add to it.
        return most if threads == 1 else min(most, max(_LEAST_TOKENS, -(-total // threads)))


def padded(rows: Sequence[Tokens]) -> NDArray[np.int64]:
    """Ids, mask and segments as the graph takes them, [3, rows, longest]."""
    batch = np.zeros((3, len(rows), max(1, *(len(row.ids) for row in rows))), np.int64)
    for number, row in enumerate(rows):
        length = len(row.ids)
        batch[0, number, :length] = row.ids
        batch[1, number, :length] = 1
        batch[2, number, :length] = row.segments
    return batch
