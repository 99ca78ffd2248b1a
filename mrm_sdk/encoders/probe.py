"""Checks a host's own encoder against the probe vector in the bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT, Probe
from mrm_sdk.encoders.base import Encoder
from mrm_sdk.errors import EncoderError, TextRefusedError


class ProbedEncoder:
    """Encodes as ``encoder`` does, after checking that it gives the same probe vector as when the bundle was made.

    Args:
        encoder: the host's; its fingerprint is right, but for a model on a server that is only a name.
        probe: of the bundle.
    """

    def __init__(self, encoder: Encoder, probe: Probe) -> None:
        self._encoder, self._probe, self._checked_process = encoder, probe, 0
        self.dimension, self.fingerprint = encoder.dimension, encoder.fingerprint

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Encodes (prompt or ``None``, response) pairs: n of them -> [n, D].

        Raises:
            BundleMismatchError: the encoder gives another vector for the probe text.
            EncoderError: it does not take the probe text.
        """
        if self._checked_process != os.getpid():
            try:
                (vector,) = np.asarray(self._encoder.encode([PROBE_TEXT]), np.float32)
            except TextRefusedError as error:  # whose reasons are about the probe: no text here is refused by it
                raise EncoderError(
                    f"{type(self._encoder).__name__} does not take the text that shows which model it runs: {error}"
                ) from None
            self._probe.check(vector, f"{type(self._encoder).__name__}")
            self._checked_process = os.getpid()
        return self._encoder.encode(texts)
