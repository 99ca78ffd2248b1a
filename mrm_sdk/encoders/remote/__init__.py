"""Embeddings from a server: protocols, retries, cache, and the probe that notices another model."""

from mrm_sdk.encoders.remote.encoder import RemoteEncoder
from mrm_sdk.encoders.remote.limits import Limits

__all__ = ["Limits", "RemoteEncoder"]
