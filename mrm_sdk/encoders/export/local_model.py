"""Loads a model from this machine or from the hub as the torch module that is exported.

There are two kinds: embedding models, of sentence-transformers or plain transformers, whose token vectors are pooled;
and reward models, decoders with a score head, whose vector is the input of that head, the last token's state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from mrm_sdk.bundle.encoder_spec import EncoderFile
from mrm_sdk.encoders.export.minilm import NAME, minilm_folder
from mrm_sdk.encoders.export.sentence_transformers import Pooling, Recipe, read_recipe
from mrm_sdk.encoders.export.tokenizer_files import ignore_case, load_tokenizer, tokenizer_files
from mrm_sdk.encoders.export.transformers_library import quiet_transformers, short_message
from mrm_sdk.errors import ConfigurationError, MissingDependencyError, NotFoundError

# Reward models are seldom trained on longer inputs, and the memory of attention grows with the square.
_MOST_TOKENS: Final = 4096
_HUB_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")
_LICENCE: Final = re.compile(r"^license: *([\w.+-]+) *$", re.MULTILINE)
_POSITIONS: Final = ("position_embeddings", "wpe", "embed_positions")


class PooledEncoder(nn.Module):
    """A transformer whose last hidden states become one vector; pools and normalises in float32 for any weights.

    Args:
        transformer: returns ``last_hidden_state`` [batch, tokens, D].
        pooling: ``mean`` over real tokens, ``cls``: the first, or ``last``.
        normalize: scale vectors to length 1.
    """

    def __init__(self, transformer: nn.Module, pooling: Pooling, *, normalize: bool) -> None:
        super().__init__()
        self.transformer, self.pooling, self.normalize = transformer, pooling, normalize

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Encodes tokens, padded behind their end: [batch, tokens] int64 each -> [batch, D] float32."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **segments).last_hidden_state
        if self.pooling == "mean":
            mask = attention_mask.unsqueeze(-1)
            total = torch.where(mask > 0, hidden.float(), 0.0).sum(1)
            pooled = total / mask.sum(1).clamp(min=1)
        elif self.pooling == "cls":
            pooled = hidden[:, 0].float()
        else:
            last = (attention_mask.sum(1) - 1).clamp(min=0)
            pooled = hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.shape[2])).squeeze(1).float()
        return nn.functional.normalize(pooled, dim=-1) if self.normalize else pooled


@dataclass(frozen=True)
class LocalModel:
    """A model ready for export.

    Args:
        name: of the model.
        module: takes ``inputs`` by name.
        inputs: names, two or three.
        files: tokenizer and, for layout ``chat``, chat template.
        layout: how prompt and response become tokens.
        max_tokens: longer inputs are truncated to this many.
        vocabulary: how many tokens the model knows.
        licence: as the model's card states it.
        notes: pooling and the like, for the manifest.
    """

    name: str
    module: PooledEncoder
    inputs: tuple[str, ...]
    files: Mapping[EncoderFile, bytes]
    layout: Literal["segments", "chat"]
    max_tokens: int
    vocabulary: int
    licence: str
    notes: Mapping[str, Any]


def load_local(
    model: str, *, max_tokens: int | None = None, pooling: Pooling | None = None, normalize: bool | None = None
) -> LocalModel:
    """Loads a model in float32, with the pooling and length that its own files name unless the caller gives others.

    Args:
        model: ``minilm``, a folder, or a name on the hub.
        max_tokens: longer inputs are truncated.
        pooling: of an embedding model.
        normalize: scale vectors to length 1.

    Raises:
        NotFoundError: there is no such folder, and the hub gives no such model.
        ConfigurationError: the model is of a kind that cannot be exported; the message says why.
        MissingDependencyError: transformers is not installed.
    """
    if pooling is not None and pooling not in get_args(Pooling):
        raise ConfigurationError(f"Pooling is {', '.join(get_args(Pooling))}; not {pooling!r}.")
    folder = _folder(model)
    recipe = read_recipe(folder) if (folder / "modules.json").is_file() else None
    config = _config((recipe.folder if recipe else folder), model)
    rewards = recipe is None and any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if rewards and (pooling is not None or normalize is not None):
        raise ConfigurationError(f"{model} is a reward model: its vectors are what its score head sees, as they are.")
    recipe = recipe or Recipe(folder, "last" if rewards else None, False, None, False)
    transformer = _transformer(recipe.folder, model, rewards=rewards)
    tokenizer = load_tokenizer(str(recipe.folder))
    if recipe.lowercase:
        ignore_case(tokenizer)
    # Before the files are written, because they drop a tokenizer's own truncation.
    most = _longest(transformer, tokenizer, config, recipe, chat=rewards)
    length = most.usual if max_tokens is None else max_tokens
    least = 2 if rewards else max(2, tokenizer.num_special_tokens_to_add(pair=True) + 1)
    if not least <= length <= (most.limit or length):
        raise ConfigurationError(f"{model} takes {least} to {most.limit or 'any number of'} tokens, not {length}.")
    chosen = pooling or recipe.pooling or "mean"
    scaled = recipe.normalize if normalize is None else normalize
    notes: dict[str, Any] = {"pooling": chosen, "normalised": scaled}
    if pooling is None and recipe.pooling is None:
        notes["note"] = "the model's files name no pooling: the mean was taken"
    return LocalModel(
        name=NAME if model == "minilm" else folder.resolve().name if Path(model).is_dir() else model,
        module=PooledEncoder(transformer, chosen, normalize=scaled).eval(),
        inputs=("input_ids", "attention_mask", *(("token_type_ids",) if _has_segments(tokenizer, config) else ())),
        files=tokenizer_files(tokenizer, model, chat=rewards),
        layout="chat" if rewards else "segments",
        max_tokens=length,
        vocabulary=transformer.get_input_embeddings().num_embeddings,
        licence=_licence(folder),
        notes=notes,
    )


def _folder(model: str) -> Path:
    if model == "minilm":
        return minilm_folder()
    if os.path.isdir(model):  # Path.is_dir takes "" for the current folder, and raises if a name is too long
        return Path(model)
    if not _HUB_NAME.fullmatch(model):
        raise NotFoundError(f"There is no folder {model!r}, and a model on the hub is called owner/name.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingDependencyError.of("transformers", "minilm", "Loading a model") from None
    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES), ignore_patterns=["onnx/*", "openvino/*"]))
    except Exception as error:  # noqa: BLE001  the libraries raise errors of any kind
        raise NotFoundError(
            f"There is no folder {model}, and the Hugging Face hub did not give a model of that name: "
            f"{short_message(error)} Check the name and the connection, or download the model and name its folder."
        ) from None


def _config(folder: Path, model: str) -> Any:
    with quiet_transformers() as library:
        try:
            config = library.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # noqa: BLE001  as for the hub
            raise ConfigurationError(
                f"{model} is no model that transformers can load: {short_message(error)}"
            ) from None
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigurationError(f"{model} has an encoder and a decoder; only models with one of them can be exported.")
    return config


def _transformer(folder: Path, model: str, *, rewards: bool) -> Any:
    """The module that gives hidden states, with every weight from the model's files."""
    if (folder / "adapter_config.json").is_file():
        raise ConfigurationError(f"{model} is an adapter: merge it into its model (merge_and_unload) and save that.")
    if not any(folder.glob("*.safetensors")):
        raise ConfigurationError(
            f"{model} has no weights as safetensors, and other formats, which can hold programs, are never opened. "
            "Convert it where you trust it: AutoModel.from_pretrained(…).save_pretrained(FOLDER)."
        )
    with quiet_transformers() as library:
        kind = library.AutoModelForSequenceClassification if rewards else library.AutoModel
        try:
            loaded, info = kind.from_pretrained(
                folder,
                dtype=torch.float32,
                # The only form of attention that exports for every class, with batches padded at their end.
                attn_implementation="eager",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # noqa: BLE001  as for the hub
            raise ConfigurationError(f"{model} cannot be loaded: {short_message(error)}") from None
    if rewards and not isinstance(getattr(loaded, "score", None), nn.Linear):
        raise ConfigurationError(
            f"{model} classifies, but has no score head over the last token: no reward model of the kind that can be "
            "exported. A classifier on the first token gives no reward per answer."
        )
    missing = sorted(name for name in info["missing_keys"] if not re.match(r"(\w+\.)?pooler\.", name))
    if missing:
        raise ConfigurationError(f"{model} lacks weights of its own, as {missing[0]}: they would be random.")
    transformer = getattr(loaded, loaded.base_model_prefix) if rewards else loaded
    transformer.config.use_cache = False
    return transformer


class _Lengths(NamedTuple):
    """How many tokens a model takes by default (``usual``), and at most (``None``: no limit)."""

    usual: int
    limit: int | None


def _longest(transformer: nn.Module, tokenizer: Any, config: Any, recipe: Recipe, *, chat: bool) -> _Lengths:
    rows = [
        # With a padding row among the positions, they are counted from the row after it.
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in transformer.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _POSITIONS
    ]
    stated = getattr(config, "max_position_embeddings", None)
    limits = [*rows, *([stated] if isinstance(stated, int) and stated > 0 else [])]
    limit = min(limits, default=None)
    own = tokenizer.model_max_length
    if not isinstance(own, int | float):
        raise ConfigurationError(f"{recipe.folder / 'tokenizer_config.json'} has a model_max_length that is no number.")
    usual = recipe.max_tokens or int(min(_MOST_TOKENS if chat or limit is None else limit, own))
    return _Lengths(min(usual, _MOST_TOKENS if chat else usual, *limits), limit)


def _has_segments(tokenizer: Any, config: Any) -> bool:
    return "token_type_ids" in tokenizer.model_input_names and getattr(config, "type_vocab_size", 0) > 1


def _licence(folder: Path) -> str:
    try:
        card = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        card = ""
    match = _LICENCE.search(card.split("\n---", 1)[0]) if card.startswith("---\n") else None
    return match[1] if match else "not stated"
