"""Tokenizers of transformers, as the files that a bundle carries."""

from __future__ import annotations

import json
from typing import Any

from mrm_sdk.bundle.encoder_spec import CHAT_TEMPLATE, TOKENIZER, EncoderFile
from mrm_sdk.encoders.export.transformers_library import quiet_transformers, short_message
from mrm_sdk.errors import ConfigurationError


def load_tokenizer(model: str) -> Any:
    """The tokenizer of transformers for a folder or a name on the hub; it runs no code of the model.

    Raises:
        ConfigurationError: there is none that can be loaded.
        MissingDependencyError: transformers is not installed.
    """
    with quiet_transformers() as library:
        try:
            return library.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        except Exception as error:  # noqa: BLE001  as for the hub
            raise ConfigurationError(f"The tokenizer of {model} cannot be loaded: {short_message(error)}") from None


def tokenizer_files(tokenizer: Any, model: str, *, chat: bool) -> dict[EncoderFile, bytes]:
    """What a bundle needs of a tokenizer of transformers: ``tokenizer.json`` and, for chats, the template.

    Raises:
        ConfigurationError: it is not a fast one, or has no chat template.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigurationError(
            f"The tokenizer of {model} exists in Python only and has no tokenizer.json: a bundle cannot carry it. "
            "Where transformers can convert it, do so: AutoTokenizer.from_pretrained(…, use_fast=True)."
        )
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if tokenizer.truncation_side == "left":
        backend.enable_truncation(2, direction="left")  # the specification holds the length
    files: dict[EncoderFile, bytes] = {TOKENIZER: backend.to_str().encode()}
    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigurationError(f"The tokenizer of {model} has no chat template; choose a model for chats.")
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        template = {"template": tokenizer.get_chat_template(), "tokens": special}
        files[CHAT_TEMPLATE] = json.dumps(template, ensure_ascii=False, indent=1).encode()
    return files


def ignore_case(tokenizer: Any) -> None:
    """Makes the tokenizer ignore case, as ``do_lower_case`` of sentence-transformers does."""
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    present = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *present])
