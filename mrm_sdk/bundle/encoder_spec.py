"""What an encoder is, as a manifest states it: how text becomes tokens, and which vectors come out."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from mrm_sdk.errors import BundleMismatchError
from mrm_sdk.schemas.frozen import Frozen

ENCODER: Final = "encoder.onnx"
ENCODER_DATA: Final = "encoder.onnx.data"
TOKENIZER: Final = "tokenizer.json"
CHAT_TEMPLATE: Final = "chat_template.json"

EncoderFile = Literal["encoder.onnx", "encoder.onnx.data", "tokenizer.json", "chat_template.json"]
Truncation = Literal["longest_first", "conversation"]
Precision = Literal["float32", "float16", "bfloat16", "int8"]
ProtocolName = Literal["openai", "vllm", "tei", "sglang"]

PROBE_TEXT: Final = ("Which of these is the better answer?", "The shorter one: it says what to do, and why.")
# Another model's vector differs by about its whole length; int8, float16 and other machines' kernels by at most 2 %.
PROBE_TOLERANCE: Final = 0.05


def digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


class Probe(Frozen):
    """The encoder's vector of ``PROBE_TEXT`` when it was new, as base64 of D little-endian float32."""

    vector: str

    @classmethod
    def of(cls, vector: NDArray[np.float32]) -> Self:
        """Keeps a vector [D]."""
        return cls(vector=base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode("ascii"))

    def numbers(self) -> NDArray[np.float32]:
        """The vector, [D].

        Raises:
            BundleMismatchError: it cannot be read.
        """
        try:
            return np.frombuffer(base64.b64decode(self.vector, validate=True), "<f4")
        except ValueError:
            raise BundleMismatchError("The encoder's probe vector cannot be read; export it again.") from None

    def check(self, vector: NDArray[np.float32], whose: str) -> None:
        """Makes sure that ``vector`` [D] is what it was when the encoder was new.

        Raises:
            BundleMismatchError: the relative distance is above ``PROBE_TOLERANCE``.
        """
        expected = self.numbers()
        if expected.shape != vector.shape:
            raise BundleMismatchError(f"{whose} gives {vector.size} numbers where it once gave {expected.size}.")
        if not same_model(vector, expected):
            distance = relative_distance(vector, expected)
            raise BundleMismatchError(
                f"{whose} gives another vector for the probe text than when the bundle was made (relative distance "
                f"{distance:.2f}): it is another model, or it runs wrongly here. Use the original encoder, or train "
                "a bundle with this one."
            )


def relative_distance(vector: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Distance of two vectors [D], as a share of the length of ``expected``; infinite if D differs."""
    if vector.shape != expected.shape:
        return math.inf
    difference = np.linalg.norm(vector.astype(np.float64) - expected)
    return float(difference / max(float(np.linalg.norm(expected.astype(np.float64))), 1e-12))


def same_model(vector: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Whether two vectors [D] of one text can come from one model: within ``PROBE_TOLERANCE``.

    Batches of other sizes move real servers' vectors by about 1e-3 of their length.
    """
    return relative_distance(vector, expected) <= PROBE_TOLERANCE


class Handcrafted(Frozen):
    """Features of the text that stand beside the embedding, standardised with statistics of the training items.

    Args:
        version: of the list of features.
        mean: of each feature.
        scale: what each difference from the mean is multiplied by.
        limit: the largest number that may come out.
    """

    version: int = Field(ge=1)
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    scale: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]
    limit: float = Field(ge=0, allow_inf_nan=False)


class RemoteSpec(Frozen):
    """Which model a server must offer, and what it is sent; where the server is, settings say.

    Args:
        protocol: of the server.
        model: its name there.
        template: how prompt and response become one text; ``None``: they are sent as chat messages.
        shorten: ask for vectors of fewer numbers than the model's own.
    """

    protocol: ProtocolName
    model: str
    template: str | None = "{prompt}\n\n{response}"
    shorten: bool = False


class EncoderSpec(Frozen):
    """How text becomes embeddings.

    Args:
        kind: ``onnx``: the graph and tokenizer travel along; ``remote``: a server encodes; ``precomputed``: the host
            brings embeddings.
        name: of the model.
        dimension: D, length of an embedding, handcrafted features included.
        max_tokens: longer inputs are truncated to this many tokens.
        layout: ``segments``: a response, or prompt and response as a pair; ``chat``: messages in the model's template.
        truncation: of segments: ``longest_first``: the end of the longer one is cut, as in bundles made before this
            field; ``conversation``: the beginning of the prompt.
        precision: of the graph's weights.
        graph: SHA-256 of the encoder's own graph, before base rewards were joined to it.
        handcrafted: features beside the graph's vector.
        remote: of kind ``remote``.
        vocabulary: how many tokens the graph knows; 0 if that is not known.
        probe: what vector a known text has.
        model_fingerprint: identifies the model and what it is fed: equal ones give equal vectors.
    """

    kind: Literal["onnx", "remote", "precomputed"]
    name: str
    dimension: int = Field(gt=0)
    max_tokens: int = Field(default=256, gt=1)
    layout: Literal["segments", "chat"] = "segments"
    truncation: Truncation = "longest_first"
    precision: Precision = "float32"
    graph: str = ""
    vocabulary: int = Field(default=0, ge=0)
    handcrafted: Handcrafted | None = None
    remote: RemoteSpec | None = None
    probe: Probe | None = None
    model_fingerprint: str

    @property
    def fingerprint(self) -> str:
        """Identifies the encoder, handcrafted features included."""
        return handcrafted_fingerprint(self.model_fingerprint, self.handcrafted)

    @property
    def described(self) -> dict[str, Any]:
        """All fields as JSON has them; without ``truncation`` where it is that of bundles made before this field."""
        return self.model_dump(mode="json", exclude=set() if self._truncation_if_stated else {"truncation"})

    @property
    def _truncation_if_stated(self) -> list[Truncation]:
        return [] if self.truncation == "longest_first" else [self.truncation]

    @property
    def own_dimension(self) -> int:
        """Length of the model's own vector, without handcrafted features."""
        return self.dimension - (0 if self.handcrafted is None else len(self.handcrafted.mean))

    def of_files(self, files: Mapping[Any, str]) -> EncoderSpec:
        """Returns this specification, of kind ``onnx``, with the fingerprint that follows from what travels along.

        Args:
            files: SHA-256 of each file.
        """
        beside = [files.get(name) for name in (ENCODER_DATA, TOKENIZER, CHAT_TEMPLATE)]
        fed = [self.max_tokens, self.layout, *self._truncation_if_stated]
        fingerprint = digest([self.graph, *beside, *fed])
        return self.model_copy(update={"model_fingerprint": fingerprint})


def handcrafted_fingerprint(fingerprint: str, handcrafted: Handcrafted | None) -> str:
    """Identifies an encoder beside which handcrafted features stand."""
    return fingerprint if handcrafted is None else digest([fingerprint, handcrafted.model_dump(mode="json")])
