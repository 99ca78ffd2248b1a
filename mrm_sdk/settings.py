"""Configuration of a client: one frozen object, from arguments or ``MRM_*`` environment variables."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias, TypedDict, Unpack

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, TypeAdapter, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mrm_sdk.errors import ConfigurationError, no_such

Provider: TypeAlias = Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "directml"]
ArenaStrategy: TypeAlias = Literal["power_of_two", "as_requested"]

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
    except OverflowError:
        raise ValueError(f"the longest time is {timedelta.max.days}d; give a shorter one than {text[:40]!r}") from None
    except ValueError:
        raise ValueError(f"a time is written 90d, 12h, 2w, as seconds, or P90D; not {text!r}") from None


def _duration(value: Any) -> Any:
    return duration(value) if isinstance(value, str) else value


def _schema(name: str) -> str:
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]{0,62}", name) or name.startswith("pg_") or name == "information_schema":
        raise ValueError(
            "a schema's name has up to 63 letters, digits and underscores, does not begin with a digit, and is none of "
            f"PostgreSQL's own (pg_…, information_schema); not {name!r}"
        )
    return name


class SettingsArguments(TypedDict, total=False):
    """The arguments of :class:`Settings`, as type checkers see them: what may be given is wider than what is kept."""

    auto_migrate: bool
    busy_timeout: float
    cache_items: int
    chunk_size: int
    database_schema: str | None
    encode_tokens: int
    encoder_url: SecretStr | str | None
    encoder_api_key: SecretStr | str | None
    encoder_api_key_header: str | None
    encoder_cache: Path | str | None
    providers: Provider
    strict_providers: bool
    device_id: int
    half_life: timedelta | str | float | None
    pool_size: int
    gpu_mem_limit: int
    arena_extend_strategy: ArenaStrategy
    threads: int
    store_text: bool


class Settings(BaseSettings):
    """How a :class:`~mrm_sdk.Client` behaves; every field can be set as ``MRM_<FIELD>`` in the environment.

    Args:
        auto_migrate: upgrade the database's tables on first use. ``False`` for teams that run ``mrm db upgrade``
            themselves: tables that are too old are then a ``SchemaOutdatedError``.
        busy_timeout: seconds that SQLite waits for another writer before it gives up.
        cache_items: how many items' base rewards are kept in memory, least recently used first out.
        chunk_size: how many comparisons one transaction of ``record_many`` holds.
        database_schema: the schema of a PostgreSQL database that holds all tables; an upgrade creates it. ``None``: the
            one that connections find first, usually ``public``.
        encode_tokens: tokens, padding included, that one run of the encoder's graph takes; 0: 512 on a CPU, where
            small batches stay in the cache, else 32,768.
        encoder_url: where the server of a bundle with a remote encoder is.
        encoder_api_key: its key, if it wants one.
        encoder_api_key_header: the header that carries the key, if it is not ``Authorization: Bearer …``; on Azure's
            hosts ``api-key`` is the default.
        encoder_cache: a file that keeps what that server has encoded, by content.
        providers: what ONNX Runtime runs graphs on: ``"auto"`` (CUDA where it starts, else the CPU), ``"cpu"``,
            ``"cuda"``, or, for those who have a build with it, ``"tensorrt"``, ``"openvino"``, ``"coreml"``,
            ``"directml"``.
        strict_providers: raise ``ProviderError`` where the provider asked for did not start, instead of warning.
        device_id: which of several GPUs.
        half_life: the age at which a user's judgement counts half, measured back from the user's newest one; ``None``:
            as the bundle says; 0: all count in full.
        pool_size: connections to the database that are kept open, where the client makes the engine; under load up to
            10 more are opened and closed again. 0: none is kept, each transaction opens its own and closes it.
        gpu_mem_limit: bytes of GPU memory that one session may take; 0: no limit.
        arena_extend_strategy: how a session's GPU memory grows: ``"power_of_two"`` (fewer, larger steps) or
            ``"as_requested"``.
        threads: CPU threads that encode and evaluate base rewards; 0: as many as this process may use (its affinity
            and its container's quota).
        store_text: keep prompts, responses and embeddings. ``False``: only their hashes and what the bundle made of
            them reach the disk, so another bundle needs the same feedback handed in once more.

    Raises:
        ConfigurationError: a value is out of range, or no such field exists.

    Example:
        >>> from mrm_sdk import Settings
        >>> Settings(half_life="90d").half_life.days
        90
    """

    model_config = SettingsConfigDict(env_prefix="MRM_", env_ignore_empty=True, frozen=True, extra="forbid")

    auto_migrate: bool = True
    busy_timeout: float = Field(default=30.0, ge=0, le=3600)
    cache_items: int = Field(default=50_000, ge=0)
    chunk_size: int = Field(default=2_000, ge=1, le=10_000)
    database_schema: Annotated[str, AfterValidator(_schema)] | None = None
    encode_tokens: int = Field(default=0, ge=0, le=4_194_304)
    encoder_url: SecretStr | None = None
    encoder_api_key: SecretStr | None = None
    encoder_api_key_header: str | None = None
    encoder_cache: Path | None = None
    providers: Provider = "auto"
    strict_providers: bool = False
    device_id: int = Field(default=0, ge=0)
    half_life: Annotated[timedelta, Field(ge=timedelta(0)), BeforeValidator(_duration)] | None = None
    pool_size: int = Field(default=5, ge=0, le=1_000)
    gpu_mem_limit: int = Field(default=0, ge=0)
    arena_extend_strategy: ArenaStrategy = "power_of_two"
    threads: int = Field(default=0, ge=0, le=1024)
    store_text: bool = True

    if TYPE_CHECKING:

        def __init__(self, **values: Unpack[SettingsArguments]) -> None: ...
    else:

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ConfigurationError(f"Invalid settings: {'; '.join(map(_told, error.errors()))}") from None

    @classmethod
    def serverless(cls, **values: Unpack[SettingsArguments]) -> Settings:
        """Settings for a function that a cloud starts, freezes and throws away; what is set explicitly stays so.

        ``pool_size=0``: a function that was frozen finds its kept connections dead, and a thousand functions would keep
        a thousand open. ``threads=1``: they have one CPU or less. ``auto_migrate=False``: many start at once, and need
        no right to change tables; run ``mrm db upgrade`` when you deploy.

        Args:
            values: any fields of settings; they win, as do variables ``MRM_*``.

        Raises:
            ConfigurationError: as for settings.
        """
        preset: SettingsArguments = {"auto_migrate": False, "pool_size": 0, "threads": 1}
        explicit = cls(**values).model_fields_set  # by argument or by variable
        return cls(**{name: value for name, value in preset.items() if name not in explicit}, **values)


def _told(error: Any) -> str:
    """One line of what pydantic found, without the value: it may be a secret."""
    name = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        return f"{name} (or MRM_{name.upper()}): {error['msg']}"
    return no_such(name, Settings.model_fields)
