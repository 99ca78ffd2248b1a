"""From text to embeddings: whatever turns a prompt and a response into a vector."""

from mrm_sdk.encoders.base import Encoder, check, embed
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.encoders.precomputed import PrecomputedEncoder

__all__ = ["Encoder", "OnnxEncoder", "PrecomputedEncoder", "check", "embed"]
