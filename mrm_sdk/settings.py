"""Configuration of a client: one frozen object, from arguments or ``MRM_*`` environment variables."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mrm_sdk.errors import ConfigurationError

_SECONDS: Final = {"": 1, "h": 3600, "d": 86400, "w": 604800}


def duration(text: str) -> timedelta:
    """Reads a length of time: ``90d``, ``12h``, ``2w``, a number of seconds, or ISO 8601 as ``P90D``.

    Raises:
        ValueError: it is none.
    """
    number = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw]?)", text.strip())
    try:
        if number is not None:
            return timedelta(seconds=float(number[1]) * _SECONDS[number[2]])
        return TypeAdapter(timedelta).validate_python(text)
    except (ValueError, OverflowError):
        raise ValueError(f"a time is written 90d, 12h, 2w, as seconds, or P90D; not {text!r}") from None


def _duration(value: Any) -> Any:
    return duration(value) if isinstance(value, str) else value


class Settings(BaseSettings):
    """How a :class:`~mrm_sdk.Client` behaves; every field can be set as ``MRM_<FIELD>`` in the environment.

    Args:
        auto_migrate: upgrade the database's tables on first use. ``False`` for teams that run ``mrm db upgrade``
            themselves: tables that are too old are then a ``SchemaOutdatedError``.
        busy_timeout: seconds that SQLite waits for another writer before it gives up.
        cache_items: how many items' base rewards are kept in memory, least recently used first out.
        chunk_size: how many comparisons one transaction of ``record_many`` holds.
        encode_tokens: tokens, padding included, that one run of the encoder's graph takes; 0: 512 on a CPU, where
            small batches stay in the cache, else 32,768.
        encoder_url: where the server of a bundle with a remote encoder is.
        encoder_api_key: its key, if it wants one.
        encoder_cache: a file that keeps what that server has encoded, by content.
        providers: what ONNX Runtime runs graphs on: ``"auto"`` (CUDA where it starts, else the CPU), ``"cpu"``,
            ``"cuda"``, or, for those who have a build with it, ``"tensorrt"``, ``"openvino"``, ``"coreml"``,
            ``"directml"``.
        strict_providers: raise ``ProviderError`` where the provider asked for did not start, instead of warning.
        device_id: which of several GPUs.
        half_life: the age at which a user's judgement counts half, measured back from the user's newest one; ``None``:
            as the bundle says; 0: all count in full.
        gpu_mem_limit: bytes of GPU memory that one session may take; 0: no limit.
        arena_extend_strategy: how a session's GPU memory grows: ``"power_of_two"`` (fewer, larger steps) or
            ``"as_requested"``.
        threads: CPU threads that encode and evaluate base rewards; 0: as many as this process may use (its affinity
            and its container's quota).
        store_text: keep prompts, responses and embeddings. ``False``: only their hashes and what the bundle made of
            them reach the disk, so another bundle needs the same feedback handed in once more.

    Raises:
        ConfigurationError: a value is out of range, or no such field exists.
    """

    model_config = SettingsConfigDict(env_prefix="MRM_", frozen=True, extra="forbid")

    auto_migrate: bool = True
    busy_timeout: float = Field(default=30.0, ge=0, le=3600)
    cache_items: int = Field(default=50_000, ge=0)
    chunk_size: int = Field(default=1_000, ge=1, le=10_000)
    encode_tokens: int = Field(default=0, ge=0, le=4_194_304)
    encoder_url: SecretStr | None = None
    encoder_api_key: SecretStr | None = None
    encoder_cache: Path | None = None
    providers: Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"] = "auto"
    strict_providers: bool = False
    device_id: int = Field(default=0, ge=0)
    half_life: Annotated[timedelta, Field(ge=timedelta(0)), BeforeValidator(_duration)] | None = None
    gpu_mem_limit: int = Field(default=0, ge=0)
    arena_extend_strategy: Literal["power_of_two", "as_requested"] = "power_of_two"
    threads: int = Field(default=0, ge=0, le=1024)
    store_text: bool = True

    if not TYPE_CHECKING:  # type checkers see the fields' own signature

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                names = [(".".join(map(str, e["loc"])), e["msg"]) for e in error.errors()]
                fields = "; ".join(f"{name} (or MRM_{name.upper()}): {message}" for name, message in names)
                raise ConfigurationError(f"Invalid settings: {fields}") from None
