"""A model on this machine or of the hub, made the torch module that is exported; imports torch, transformers late.

Two kinds are known. Embedding models, as sentence-transformers writes them or plain transformers ones, whose token
vectors are pooled. And reward models: decoders with a score head, whose input, the last token's state, is taken.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

import torch
from pydantic import BaseModel, PositiveInt, TypeAdapter, ValidationError
from torch import Tensor, nn

from mrm_sdk.bundle.encoder_spec import CHAT_TEMPLATE, TOKENIZER, EncoderFile
from mrm_sdk.encoders.export.minilm import NAME, minilm_folder
from mrm_sdk.errors import ConfigurationError, MissingDependencyError, NotFoundError

Pooling = Literal["mean", "cls", "last"]

# What reward models are trained on is seldom longer, and the memory of attention grows with the square.
_MOST_TOKENS: Final = 4096
_HUB_NAME: Final = re.compile(r"[\w.-]+(/[\w.-]+)?")
_HUB_FILES: Final = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "README.md")
_LICENCE: Final = re.compile(r"^license: *([\w.+-]+) *$", re.MULTILINE)
_LENGTHS: Final = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json")
_POSITIONS: Final = ("position_embeddings", "wpe", "embed_positions")
_Shape = TypeVar("_Shape")


class PooledEncoder(nn.Module):
    """A transformer and one vector of its last hidden states; pooled and normalised in float32 whatever the weights.

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
        notes: what was decided on the way, for the manifest.
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


class _Recipe(NamedTuple):
    """What a model's own files say of it: where the transformer lies, and what becomes of its token vectors."""

    folder: Path
    pooling: Pooling | None
    normalize: bool
    max_tokens: int | None
    lowercase: bool


class _Module(BaseModel):
    type: str
    path: str


class _Settings(BaseModel):
    """What is used of config_sentence_transformers.json, and of sentence_bert_config.json."""

    default_prompt_name: str | None = None
    prompts: dict[str, Any] | None = None
    transformer_task: str = "feature-extraction"
    max_seq_length: PositiveInt | None = None
    do_lower_case: bool | None = None


def load_local(
    model: str, *, max_tokens: int | None = None, pooling: Pooling | None = None, normalize: bool | None = None
) -> LocalModel:
    """Loads a model in float32, with what its own files say of pooling and length unless the caller says otherwise.

    Args:
        model: ``minilm``, a folder, or a name on the hub.
        max_tokens: longer inputs are truncated.
        pooling: of an embedding model.
        normalize: likewise.

    Raises:
        NotFoundError: there is no such folder, and no such model that the hub would give.
        ConfigurationError: the model is of a kind that cannot be exported; the message says what is in the way.
        MissingDependencyError: transformers is not installed.
    """
    if pooling is not None and pooling not in get_args(Pooling):
        raise ConfigurationError(f"Pooling is {', '.join(get_args(Pooling))}; not {pooling!r}.")
    folder = _folder(model)
    recipe = _sentence_transformer(folder) if (folder / "modules.json").is_file() else None
    config = _config((recipe.folder if recipe else folder), model)
    rewards = recipe is None and any(name.endswith("ForSequenceClassification") for name in config.architectures or ())
    if rewards and (pooling is not None or normalize is not None):
        raise ConfigurationError(f"{model} is a reward model: its vectors are what its score head sees, as they are.")
    recipe = recipe or _Recipe(folder, "last" if rewards else None, False, None, False)
    transformer = _transformer(recipe.folder, model, rewards=rewards)
    tokenizer = load_tokenizer(str(recipe.folder))
    if recipe.lowercase:
        _lowercase(tokenizer)
    # Before the files are made, in which a tokenizer's own truncation has no place.
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


def load_tokenizer(model: str) -> Any:
    """The tokenizer of transformers for a folder or a name on the hub; it runs no code of the model's.

    Raises:
        ConfigurationError: there is none that can be loaded.
        MissingDependencyError: transformers is not installed.
    """
    with _transformers() as library:
        try:
            return library.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        except Exception as error:  # noqa: BLE001  as for the hub
            raise ConfigurationError(f"The tokenizer of {model} cannot be loaded: {_short(error)}") from None


def tokenizer_files(tokenizer: Any, model: str, *, chat: bool) -> dict[EncoderFile, bytes]:
    """What a bundle needs of a tokenizer of transformers: ``tokenizer.json`` and, for chats, the template.

    Raises:
        ConfigurationError: it is not a fast one, or has no chat template.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigurationError(
            f"The tokenizer of {model} exists in Python only and has no tokenizer.json: it cannot travel along. "
            "Where transformers can convert it, do so: AutoTokenizer.from_pretrained(…, use_fast=True)."
        )
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    if tokenizer.truncation_side == "left":
        backend.enable_truncation(2, direction="left")  # the length is the specification's
    files: dict[EncoderFile, bytes] = {TOKENIZER: backend.to_str().encode()}
    if chat:
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigurationError(f"The tokenizer of {model} has no chat template; choose a model for chats.")
        special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        template = {"template": tokenizer.get_chat_template(), "tokens": special}
        files[CHAT_TEMPLATE] = json.dumps(template, ensure_ascii=False, indent=1).encode()
    return files


def _folder(model: str) -> Path:
    if model == "minilm":
        return minilm_folder()
    if os.path.isdir(model):  # where Path's takes "" for the current folder, and raises if a name is too long
        return Path(model)
    if not _HUB_NAME.fullmatch(model):
        raise NotFoundError(f"There is no folder {model!r}, and a model on the hub is called owner/name.")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise MissingDependencyError.of("transformers", "minilm", "Loading a model") from None
    try:
        return Path(snapshot_download(model, allow_patterns=list(_HUB_FILES), ignore_patterns=["onnx/*", "openvino/*"]))
    except Exception as error:  # noqa: BLE001  the libraries raise what they like
        raise NotFoundError(
            f"There is no folder {model}, and the Hugging Face hub did not give a model of that name: {_short(error)} "
            "Check the name and the connection, or download the model and name its folder."
        ) from None


def _sentence_transformer(folder: Path) -> _Recipe:
    """Reads the files that sentence-transformers writes beside a model."""
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
    where = modules[0][1]
    own = next((_json(where / name, _Settings) for name in _LENGTHS if os.path.isfile(where / name)), _Settings())
    if own.transformer_task != "feature-extraction":
        raise ConfigurationError(f"{folder} is for {own.transformer_task}, not for feature-extraction.")
    pooling = _pooling(_json(modules[1][1] / "config.json", dict[str, Any]), folder)
    return _Recipe(where, pooling, len(kinds) == 3, own.max_seq_length, bool(own.do_lower_case))


def _pooling(config: Mapping[str, Any], folder: Path) -> Pooling:
    """Of the newer form, ``pooling_mode: "mean"``, or of the older one, a flag for each mode."""
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


def _config(folder: Path, model: str) -> Any:
    with _transformers() as library:
        try:
            config = library.AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # noqa: BLE001  as for the hub
            raise ConfigurationError(f"{model} is no model that transformers can load: {_short(error)}") from None
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
    with _transformers() as library:
        kind = library.AutoModelForSequenceClassification if rewards else library.AutoModel
        try:
            loaded, found = kind.from_pretrained(
                folder,
                dtype=torch.float32,
                # The one form of attention that exports for every class, with batches padded behind their end.
                attn_implementation="eager",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # noqa: BLE001  as for the hub
            raise ConfigurationError(f"{model} cannot be loaded: {_short(error)}") from None
    if rewards and not isinstance(getattr(loaded, "score", None), nn.Linear):
        raise ConfigurationError(
            f"{model} classifies, but has no score head over the last token: no reward model of the kind that can be "
            "exported. A classifier on the first token gives no reward per answer."
        )
    missing = sorted(name for name in found["missing_keys"] if not re.match(r"(\w+\.)?pooler\.", name))
    if missing:
        raise ConfigurationError(f"{model} lacks weights of its own, as {missing[0]}: they would be random.")
    transformer = getattr(loaded, loaded.base_model_prefix) if rewards else loaded
    transformer.config.use_cache = False
    return transformer


class _Lengths(NamedTuple):
    """How many tokens a model takes: ``usual``ly, and at most (``None``: no limit)."""

    usual: int
    limit: int | None


def _longest(transformer: nn.Module, tokenizer: Any, config: Any, recipe: _Recipe, *, chat: bool) -> _Lengths:
    rows = [
        # A padding row among the positions means that they are counted from behind it.
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


def _lowercase(tokenizer: Any) -> None:
    """Makes the tokenizer ignore case, as ``do_lower_case`` of sentence-transformers does."""
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    present = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *present])


def _licence(folder: Path) -> str:
    try:
        card = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        card = ""
    found = _LICENCE.search(card.split("\n---", 1)[0]) if card.startswith("---\n") else None
    return found[1] if found else "not stated"


def _json(path: Path, shape: type[_Shape]) -> _Shape:
    """What a file holds, or what it would with nothing in it where there is none."""
    try:
        return TypeAdapter(shape).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return shape()
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) or "all of it" for e in error.errors())
        raise ConfigurationError(f"{path} has missing or invalid values: {fields}. Get the model again.") from None
    except (OSError, ValueError, RecursionError):
        raise ConfigurationError(f"{path} cannot be read as JSON: the model is incomplete. Get it again.") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@contextmanager
def _transformers() -> Iterator[Any]:
    """The library, which says nothing on its own meanwhile: what is wrong becomes an error of ours."""
    try:
        import transformers
    except ImportError:
        raise MissingDependencyError.of("transformers", "minilm", "Loading a model") from None
    logging = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
