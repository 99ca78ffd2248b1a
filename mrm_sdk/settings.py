"""Configuration of a client: one frozen object, from arguments or ``MRM_*`` environment variables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mrm_sdk.errors import ConfigurationError


class Settings(BaseSettings):
    """How a :class:`~mrm_sdk.Client` behaves; every field can be set as ``MRM_<FIELD>`` in the environment.

    Args:
        auto_migrate: upgrade the database's tables on first use. ``False`` for teams that run ``mrm db upgrade``
            themselves: tables that are too old are then a ``SchemaOutdatedError``.
        busy_timeout: seconds that SQLite waits for another writer before it gives up.
        cache_items: how many items' base rewards are kept in memory, least recently used first out.
        chunk_size: how many comparisons one transaction of ``record_many`` holds.
        encode_batch_size: how many texts one run of the encoder's graph takes.
        providers: ``"auto"`` (CUDA where it starts, else CPU), ``"cpu"`` or ``"cuda"``.
        strict_providers: raise ``ProviderError`` where the provider asked for did not start, instead of warning.
        threads: CPU threads of one ONNX Runtime session; 0 lets ONNX Runtime choose.

    Raises:
        ConfigurationError: a value is out of range, or no such field exists.
    """

    model_config = SettingsConfigDict(env_prefix="MRM_", frozen=True, extra="forbid")

    auto_migrate: bool = True
    busy_timeout: float = Field(default=30.0, ge=0, le=3600)
    cache_items: int = Field(default=50_000, ge=0)
    chunk_size: int = Field(default=1_000, ge=1, le=10_000)
    encode_batch_size: int = Field(default=32, ge=1, le=4096)
    providers: Literal["auto", "cpu", "cuda"] = "auto"
    strict_providers: bool = False
    threads: int = Field(default=0, ge=0, le=1024)

    if not TYPE_CHECKING:  # type checkers see the fields' own signature

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                names = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
                fields = "; ".join(f"{name} (or MRM_{name.upper()}): {message}" for name, message in names)
                raise ConfigurationError(f"Invalid settings: {fields}") from None
