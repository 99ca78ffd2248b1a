"""One server of embeddings: its address, model and key, and the text that probes it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr

from mrm_sdk.encoders.remote.limits import Limits
from mrm_sdk.encoders.remote.protocols import Input, ServerProtocol


@dataclass(frozen=True)
class Endpoint:
    """One server of embeddings.

    Args:
        protocol: that it speaks.
        url: of the endpoint; may hold a password.
        host: for messages.
        key: a secret.
        key_header: that carries it; in ``Authorization`` it is a bearer token.
        model: its name.
        dimension: D, if the host gave it.
        shorten: ask the server for vectors of ``dimension`` numbers.
        probe: the fixed text, as it is sent.
        limits: of requests.
    """

    protocol: ServerProtocol
    url: SecretStr
    host: str
    key: SecretStr | None
    key_header: str
    model: str
    dimension: int | None
    shorten: bool
    probe: Input
    limits: Limits
