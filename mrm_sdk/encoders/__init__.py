"""From text to embeddings: whatever turns a prompt and a response into a vector."""

from mrm_sdk.encoders.base import Encoder, base_rewards, check, close, embed
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.encoders.precomputed import PrecomputedEncoder
from mrm_sdk.encoders.remote import RemoteEncoder
from mrm_sdk.encoders.resolve import open_encoder

__all__ = [
    "Encoder",
    "OnnxEncoder",
    "PrecomputedEncoder",
    "RemoteEncoder",
    "base_rewards",
    "check",
    "close",
    "embed",
    "open_encoder",
]
