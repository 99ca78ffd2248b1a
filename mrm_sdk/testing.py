"""Contract tests for the parts that a host brings: subclass one in your own tests, and pytest runs it.

::

    from mrm_sdk.testing import EncoderContract

    class TestMyEncoder(EncoderContract):
        def make_encoder(self):
            return MyEncoder("models/mine")

Plain ``assert`` statements: pytest collects and explains them, and nothing here needs pytest itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import PROBE_TEXT, Probe
from mrm_sdk.encoders import Encoder

__all__ = ["EncoderContract"]


class EncoderContract:
    """What :class:`mrm_sdk.encoders.Encoder` promises, as tests of one encoder.

    Override :meth:`make_encoder`; a subclass named ``Test…`` is collected by pytest.

    Attributes:
        texts: (prompt or ``None``, response) pairs that the encoder must tell apart; at least three.
        tolerance: largest distance between two vectors of one text, relative to the vector's length. Batches of other
            sizes move float32 vectors by about 1e-6, those of a server by about 1e-3.
    """

    texts: Sequence[tuple[str | None, str]] = (
        ("How do I boil an egg?", "Put it into boiling water for seven minutes, then into cold water."),
        ("How do I boil an egg?", "Eggs? I would not. Have some toast instead!"),
        (None, "Thanks! That helped a lot."),
        ("天気はどうですか。", "今日は晴れています 🙂"),
        ("Summarise the plot of Faust.", "A scholar sells his soul for knowledge and pleasure. " * 20),
    )
    tolerance: float = 1e-3

    def make_encoder(self) -> Encoder:
        """Returns a new encoder; called once per test, and twice by one of them."""
        raise NotImplementedError("Override make_encoder: return the encoder to test.")

    def test_dimension_and_fingerprint(self) -> None:
        """D is a positive integer; the fingerprint is a text that is not empty."""
        encoder = self.make_encoder()
        assert isinstance(encoder.dimension, int)
        assert encoder.dimension > 0
        assert isinstance(encoder.fingerprint, str)
        assert encoder.fingerprint

    def test_shape_and_values(self) -> None:
        """Encoding n texts gives [n, D] finite float32 numbers."""
        encoder = self.make_encoder()
        vectors = encoder.encode(self.texts)
        assert isinstance(vectors, np.ndarray)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(self.texts), encoder.dimension)
        assert np.isfinite(vectors).all()

    def test_determinism(self) -> None:
        """The same texts give the same vectors again."""
        encoder = self.make_encoder()
        self._assert_alike(encoder.encode(self.texts), encoder.encode(self.texts))

    def test_batch_independence(self) -> None:
        """A text's vector depends neither on the other texts of its batch nor on their order."""
        encoder = self.make_encoder()
        together = encoder.encode(self.texts)
        self._assert_alike(np.concatenate([encoder.encode([text]) for text in self.texts]), together)
        self._assert_alike(encoder.encode(self.texts[::-1])[::-1], together)

    def test_texts_are_told_apart(self) -> None:
        """Different texts have different vectors: further apart than the tolerance."""
        vectors = self.make_encoder().encode(self.texts).astype(np.float64)
        for index, vector in enumerate(vectors):
            distances = np.linalg.norm(np.delete(vectors, index, axis=0) - vector, axis=1)
            assert distances.min() > self.tolerance * np.linalg.norm(vector), self.texts[index]

    def test_the_fingerprint_promises_the_vectors(self) -> None:
        """Two encoders made alike have one fingerprint, and give the same vectors."""
        first, second = self.make_encoder(), self.make_encoder()
        assert first.fingerprint == second.fingerprint
        assert first.dimension == second.dimension
        self._assert_alike(first.encode(self.texts), second.encode(self.texts))

    def test_the_probe(self) -> None:
        """The probe text's vector passes the check that a bundle makes when the encoder is opened."""
        (vector,) = self.make_encoder().encode([PROBE_TEXT])
        assert np.linalg.norm(vector) > 0
        (again,) = self.make_encoder().encode([PROBE_TEXT])
        Probe.of(vector).check(again, type(self).__name__)

    def test_threads(self) -> None:
        """Threads may share an encoder: a client encodes in the thread that calls it."""
        encoder = self.make_encoder()
        expected = encoder.encode(self.texts)
        with ThreadPoolExecutor(4) as pool:
            for vectors in pool.map(encoder.encode, [self.texts] * 8):
                self._assert_alike(vectors, expected)

    def test_unusual_texts(self) -> None:
        """Empty, blank, very long and symbol-only texts have finite vectors."""
        unusual = [("", ""), (None, ""), (" ", "\n\t"), ("?", "word " * 5_000), (None, "🙂🙂"), ("a\u202eb", "\ufeff")]
        vectors = self.make_encoder().encode(unusual)
        assert vectors.shape[0] == len(unusual)
        assert np.isfinite(vectors).all()

    def _assert_alike(self, vectors: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        assert vectors.shape == expected.shape
        distances = np.linalg.norm(vectors.astype(np.float64) - expected, axis=1)
        lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
        relative = distances / np.maximum(lengths, 1e-12)
        assert relative.max() <= self.tolerance, f"relative distance {relative.max():.1e} above {self.tolerance:.1e}"
