"""ONNX Runtime by itself on the graph of a bundle's encoder: what fresh texts are held against."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from mrm_sdk import Bundle
from mrm_sdk.bundle.encoder_spec import ENCODER
from mrm_sdk.encoders.onnx import INPUTS, padded
from mrm_sdk.encoders.tokenization import layout


class BareEncoder:
    """A session with the runtime's own defaults: all cores share one run.

    Args:
        path: of a bundle that carries its encoder.
    """

    def __init__(self, path: Path) -> None:
        bundle = Bundle(path)
        self._graph = bundle.read(ENCODER)
        self._layout = layout(bundle.manifest.encoder, bundle.read)
        self._session: Any = None

    def tokens(self, prompt: str, answers: Sequence[str]) -> dict[str, Any]:
        """What the graph takes for answers to a prompt, in one batch."""
        batch = padded(self._layout([(prompt, answer) for answer in answers]))
        return dict(zip(INPUTS, batch, strict=True))

    def open(self) -> None:
        """A new session."""
        self._session = onnxruntime.InferenceSession(self._graph, providers=["CPUExecutionProvider"])

    def run(self, tokens: dict[str, Any]) -> object:
        """Base rewards of a batch."""
        return self._session.run(["base_rewards"], tokens)

    def open_and_run(self, tokens: dict[str, Any]) -> object:
        """What a first call cannot do without."""
        self.open()
        return self.run(tokens)
