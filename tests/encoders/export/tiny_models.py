"""Embedding models for tests, as sentence-transformers writes them: random weights, real tokenizers, every file."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)

from tests.encoders.tiny_llama import write_tiny_llama

LENGTH = 48
_SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def words() -> BertTokenizer:
    """WordPiece over letters: every ASCII word is spelled, what is not ASCII is unknown."""
    letters = string.ascii_lowercase + string.digits + string.punctuation
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), "the"]
    return BertTokenizer(vocab={name: number for number, name in enumerate(names)}, model_max_length=LENGTH)


def letters() -> RobertaTokenizer:
    """Byte-level BPE with a single merge."""
    names = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "<mask>"]
    vocab = {name: number for number, name in enumerate(names)}
    return RobertaTokenizer(vocab=vocab, merges=[("t", "h")], model_max_length=LENGTH)


def ending(folder: Path) -> PreTrainedTokenizerBase:
    """Byte-level BPE that ends every text with a token of its own, as embedding models made from decoders have it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(write_tiny_llama(folder))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", pair="$A <|start|> $B <|end|>", special_tokens=[("<|end|>", 2), ("<|start|>", 1)]
    )
    tokenizer.model_max_length = LENGTH
    return tokenizer


def write_transformer(folder: Path, kind: str) -> Path:
    """Saves a transformer and its tokenizer: ``bert``, ``roberta``, ``distilbert`` or ``qwen3``."""
    torch.manual_seed(len(kind))
    if kind == "qwen3":
        tokenizer: Any = ending(folder.with_name(folder.name + "-tokenizer"))
        model: Any = Qwen3Model(
            Qwen3Config(**_SIZE, vocab_size=len(tokenizer), num_key_value_heads=1, head_dim=8, pad_token_id=3,
                        max_position_embeddings=256, attention_bias=False)
        )  # fmt: skip
    elif kind == "roberta":
        tokenizer = letters()
        # Positions are counted from behind the padding's: two rows of the table are never reached.
        config = RobertaConfig(
            **_SIZE, vocab_size=len(tokenizer), type_vocab_size=1, pad_token_id=1, max_position_embeddings=LENGTH + 2
        )
        model = RobertaModel(config)
    elif kind == "distilbert":
        tokenizer = words()
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        model = DistilBertModel(
            DistilBertConfig(vocab_size=len(tokenizer), dim=16, hidden_dim=32, n_layers=2, n_heads=2,
                             max_position_embeddings=LENGTH)
        )  # fmt: skip
    else:
        tokenizer = words()
        model = BertModel(BertConfig(**_SIZE, vocab_size=len(tokenizer), max_position_embeddings=LENGTH))
    with torch.no_grad():  # fresh weights are so small that positions and segments would hardly show
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_model(
    folder: Path, kind: str, *, pooling: str = "mean", normalize: bool = True, older: bool = False, **settings: Any
) -> Path:
    """Saves what sentence-transformers loads, in the form of its version 6 or in the older one.

    Args:
        folder: where.
        kind: of transformer.
        pooling: ``mean``, ``cls`` or ``lasttoken``, or what else the library has.
        normalize: with a third module.
        older: flags for pooling, and the modules' older names.
        settings: of sentence_bert_config.json.
    """
    write_transformer(folder, kind)
    names = ["Transformer", "Pooling", "Normalize"][: 3 if normalize else 2]
    new = {"Transformer": "base.modules.transformer", "Pooling": "sentence_transformer.modules.pooling",
           "Normalize": "base.modules.normalize"}  # fmt: skip
    modules = [
        {"idx": number, "name": str(number), "path": f"{number}_{name}" if number else "",
         "type": f"sentence_transformers.{'models' if older else new[name]}.{name}"}
        for number, name in enumerate(names)
    ]  # fmt: skip
    write(folder / "modules.json", modules)
    flags = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
    pooled: dict[str, Any] = {"embedding_dimension": 16, "pooling_mode": pooling, "include_prompt": True}
    if older:
        pooled = {"word_embedding_dimension": 16}
        pooled |= {f"pooling_mode_{flag}": mode == pooling for mode, flag in flags.items()}
    write(folder / "1_Pooling" / "config.json", pooled)
    write(folder / "sentence_bert_config.json", settings)
    prompts = {"prompts": {"query": "ask: ", "document": ""}, "default_prompt_name": None}
    write(folder / "config_sentence_transformers.json", prompts)
    for name in names[2:]:
        write(folder / f"2_{name}" / "config.json", {})
    return folder


def write(path: Path, value: Any) -> None:
    """Writes JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
