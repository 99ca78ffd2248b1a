"""What the files of a sentence-transformers model say: its transformer, its pooling, its length."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, PositiveInt, TypeAdapter, ValidationError

from mrm_sdk.errors import ConfigurationError

Pooling = Literal["mean", "cls", "last"]

_LENGTH_FILES: Final = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")
_Shape = TypeVar("_Shape")


class Recipe(NamedTuple):
    """Where a model's transformer is, and how its token vectors become one vector.

    Args:
        folder: of the transformer.
        pooling: of token vectors; ``None`` if the files name none.
        normalize: scale vectors to length 1.
        max_tokens: longer inputs are truncated; ``None`` if the files name no length.
        lowercase: ignore case.
    """

    folder: Path
    pooling: Pooling | None
    normalize: bool
    max_tokens: int | None
    lowercase: bool


class _Module(BaseModel):
    type: str
    path: str


class _Settings(BaseModel):
    """The used fields of config_sentence_transformers.json and sentence_bert_config.json."""

    default_prompt_name: str | None = None
    prompts: dict[str, Any] | None = None
    transformer_task: str = "feature-extraction"
    max_seq_length: PositiveInt | None = None
    do_lower_case: bool | None = None


def read_recipe(folder: Path) -> Recipe:
    """Reads the files that sentence-transformers writes beside a model.

    Raises:
        ConfigurationError: the model is of a kind that cannot be exported, or a file is damaged.
    """
    modules = [(m.type.rpartition(".")[2], folder / m.path) for m in _json(folder / "modules.json", list[_Module])]
    kinds = [kind for kind, _ in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ConfigurationError(
            f"{folder} is made of {', '.join(kinds) or 'nothing'}; what can be exported is Transformer, Pooling and, "
            "where there is one, Normalize."
        )
    settings = _json(folder / "config_sentence_transformers.json", _Settings)
    default = settings.default_prompt_name
    if default is not None and (settings.prompts or {}).get(default):
        raise ConfigurationError(
            f"{folder} puts the prompt {default!r} before every text, which an exported encoder does not. Set "
            "default_prompt_name to null in its config_sentence_transformers.json, and put the prompt into your texts."
        )
    transformer = modules[0][1]
    files = (transformer / name for name in _LENGTH_FILES)
    length = next((_json(file, _Settings) for file in files if os.path.isfile(file)), _Settings())
    if length.transformer_task != "feature-extraction":
        raise ConfigurationError(f"{folder} is for {length.transformer_task}, not for feature-extraction.")
    pooling = _pooling(_json(modules[1][1] / "config.json", dict[str, Any]), folder)
    return Recipe(transformer, pooling, len(kinds) == 3, length.max_seq_length, bool(length.do_lower_case))


def _pooling(config: Mapping[str, Any], folder: Path) -> Pooling:
    """Reads the newer form, ``pooling_mode: "mean"``, or the older one, a flag for each mode."""
    flags = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    modes = config.get("pooling_mode") or [mode for mode in flags if config.get(f"pooling_mode_{mode}")] or ["mean"]
    modes = [str(mode) for mode in modes] if isinstance(modes, list) else [str(modes)]
    known: dict[str, Pooling] = {
        "mean": "mean", "mean_tokens": "mean", "cls": "cls", "cls_token": "cls", "lasttoken": "last",
    }  # fmt: skip
    if len(modes) != 1 or modes[0] not in known:
        raise ConfigurationError(
            f"{folder} pools by {', '.join(modes)}; what can be exported is one of mean, cls and lasttoken."
        )
    return known[modes[0]]


def _json(path: Path, shape: type[_Shape]) -> _Shape:
    """A file's content; the defaults of ``shape`` if there is no file."""
    try:
        return TypeAdapter(shape).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return shape()
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or "all of it" for e in error.errors())
        raise ConfigurationError(f"{path} has missing or invalid values: {fields}. Get the model again.") from None
    except (OSError, ValueError, RecursionError):
        raise ConfigurationError(f"{path} cannot be read as JSON: the model is incomplete. Get it again.") from None
