"""Which models can be exported, what their own files decide, and what is said of those that cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification, T5Config, T5EncoderModel, logging

from mrm_sdk.encoders.export.local_model import load_local
from mrm_sdk.encoders.export.minilm import minilm_folder
from mrm_sdk.encoders.export.tokenizer_files import tokenizer_files
from mrm_sdk.errors import ConfigurationError, NotFoundError
from tests.encoders.export.tiny_models import LENGTH, words, write, write_model, write_transformer
from tests.encoders.tiny_llama import write_tiny_llama


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", "bert")


def change(path: Path, **changes: Any) -> None:
    write(path, {**json.loads(path.read_text(encoding="utf-8")), **changes})


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize(("pooling", "expected"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "last")])
def test_pooling_in_both_forms(tmp_path: Path, older: bool, pooling: str, expected: str) -> None:
    local = load_local(str(write_model(tmp_path / "m", "bert", pooling=pooling, older=older, normalize=older)))
    assert (local.module.pooling, local.module.normalize) == (expected, older)


def test_the_callers_word_counts(model: Path) -> None:
    local = load_local(str(model), pooling="cls", normalize=False, max_tokens=10)
    assert (local.module.pooling, local.module.normalize, local.max_tokens) == ("cls", False, 10)
    assert local.name == "model"


def test_inputs_and_lengths_of_each_class(tmp_path: Path) -> None:
    three = ("input_ids", "attention_mask", "token_type_ids")
    bert = load_local(str(write_model(tmp_path / "b", "bert", max_seq_length=12)))
    assert (bert.inputs, bert.max_tokens) == (three, 12)
    for kind in ("roberta", "distilbert"):
        local = load_local(str(write_transformer(tmp_path / kind, kind)))
        assert (local.inputs, local.max_tokens) == (three[:2], LENGTH)
    tokenizer = tmp_path / "roberta" / "tokenizer_config.json"
    change(tokenizer, model_max_length=10**30)
    assert load_local(str(tmp_path / "roberta")).max_tokens == LENGTH  # not the table's 50 rows
    # <s> a </s></s> b </s>: at least one token beside the special ones of a pair
    assert load_local(str(tmp_path / "roberta"), max_tokens=5).max_tokens == 5
    for wrong in (1, 4, LENGTH + 1):
        with pytest.raises(ConfigurationError, match=f"takes 5 to {LENGTH} tokens, not {wrong}"):
            load_local(str(tmp_path / "roberta"), max_tokens=wrong)


def test_the_packaged_minilm() -> None:
    local = load_local("minilm")
    assert local.name == "sentence-transformers/all-MiniLM-L6-v2"
    assert (local.module.pooling, local.module.normalize, local.max_tokens) == ("mean", True, 256)
    assert local.licence == "apache-2.0"
    assert (minilm_folder() / "model.safetensors").is_file()


def test_a_reward_model(tmp_path: Path) -> None:
    model = str(write_tiny_llama(tmp_path / "m"))
    local = load_local(model)
    assert (local.layout, local.module.pooling, local.module.normalize, local.max_tokens) == (
        "chat",
        "last",
        False,
        512,
    )
    assert local.licence == "not stated"
    for setting in ({"pooling": "mean"}, {"normalize": True}):
        with pytest.raises(ConfigurationError, match="is a reward model"):
            load_local(model, **setting)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="has no chat template"):
        load_local(str(write_tiny_llama(tmp_path / "plain", template=None)))


def test_a_classifier_is_no_reward_model(tmp_path: Path) -> None:
    config = BertConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=200
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    words().save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="no score head over the last token"):
        load_local(str(tmp_path))


def test_parts_that_cannot_be_exported(model: Path) -> None:
    modules = json.loads((model / "modules.json").read_text())
    dense = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    write(model / "modules.json", [*modules, dense])
    with pytest.raises(ConfigurationError, match="is made of Transformer, Pooling, Normalize, Dense"):
        load_local(str(model))
    write(model / "modules.json", modules)
    for pooling in ("max", ["mean", "cls"]):
        change(model / "1_Pooling" / "config.json", pooling_mode=pooling)
        with pytest.raises(ConfigurationError, match=r"pools by (max|mean, cls); what can be exported"):
            load_local(str(model))
    change(model / "1_Pooling" / "config.json", pooling_mode="mean")
    change(model / "sentence_bert_config.json", transformer_task="fill-mask")
    with pytest.raises(ConfigurationError, match="is for fill-mask"):
        load_local(str(model))
    (model / "modules.json").write_text("[{")
    with pytest.raises(ConfigurationError, match=r"modules\.json cannot be read as JSON"):
        load_local(str(model))


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        ("modules.json", {"type": "Transformer"}, "all of it"),
        ("modules.json", [{"type": "Transformer"}], r"0\.path"),
        ("modules.json", ["Transformer"], "0"),
        ("modules.json", [{"type": "Transformer", "path": 3}], r"0\.path"),
        ("config_sentence_transformers.json", [], "all of it"),
        ("config_sentence_transformers.json", {"default_prompt_name": ["query"]}, "default_prompt_name"),
        ("config_sentence_transformers.json", {"default_prompt_name": "query", "prompts": "ask: "}, "prompts"),
        ("sentence_bert_config.json", 32, "all of it"),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_seq_length"),
        ("sentence_bert_config.json", {"max_seq_length": -1}, "max_seq_length"),
        ("1_Pooling/config.json", ["mean"], "all of it"),
    ],
)
def test_malformed_files_are_named(model: Path, file: str, content: Any, named: str) -> None:
    write(model / file, content)
    with pytest.raises(ConfigurationError, match=rf"{file} has missing or invalid values: {named}\."):
        load_local(str(model))


def test_malformed_pooling_and_length(model: Path) -> None:
    change(model / "1_Pooling" / "config.json", pooling_mode=[{"mean": True}])
    with pytest.raises(ConfigurationError, match="pools by"):
        load_local(str(model))
    change(model / "1_Pooling" / "config.json", pooling_mode="mean")
    for wrong in ("long", ["512"]):
        change(model / "tokenizer_config.json", model_max_length=wrong)
        with pytest.raises(ConfigurationError, match=r"tokenizer_config\.json has a model_max_length that is no"):
            load_local(str(model))
    change(model / "tokenizer_config.json", model_max_length=float("inf"))
    assert load_local(str(model)).max_tokens == LENGTH
    change(model / "tokenizer_config.json", model_max_length=1)
    with pytest.raises(ConfigurationError, match=f"takes 4 to {LENGTH} tokens, not 1"):
        load_local(str(model))


@pytest.mark.parametrize("name", ["", "x" * 300, "owner/" + "x" * 300, "/" + "x" * 300, "nul\0"])
def test_names_of_no_model(name: str) -> None:
    """None of them reaches the network: the hub's own library refuses them."""
    with pytest.raises(NotFoundError, match="There is no folder"):
        load_local(name)


def test_a_default_prompt(model: Path) -> None:
    change(model / "config_sentence_transformers.json", default_prompt_name="document")
    load_local(str(model))  # an empty one, which changes nothing
    change(model / "config_sentence_transformers.json", default_prompt_name="query")
    with pytest.raises(ConfigurationError, match="puts the prompt 'query' before every text"):
        load_local(str(model))


def test_weights_that_are_pickled_are_never_opened(model: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(ConfigurationError, match="no weights as safetensors"):
        load_local(str(model))


def test_weights_that_are_missing_are_not_made_up(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigurationError, match=r"lacks weights of its own, as encoder\.layer\.1\.output"):
        load_local(str(model))
    (model / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match="cannot be loaded: "):
        load_local(str(model))


def test_code_of_the_models_is_never_run(model: Path) -> None:
    (model / "modeling_own.py").write_text(f"open({str(model / 'ran')!r}, 'w')\n")
    own = {"AutoConfig": "modeling_own.Config", "AutoModel": "modeling_own.Model"}
    change(model / "config.json", model_type="own", auto_map=own)
    with pytest.raises(ConfigurationError, match="no model that transformers can load"):
        load_local(str(model))
    assert not (model / "ran").exists()


def test_other_kinds(tmp_path: Path, model: Path) -> None:
    T5EncoderModel(T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=200)).save_pretrained(
        tmp_path / "t5"
    )
    change(tmp_path / "t5" / "config.json", is_encoder_decoder=True)
    with pytest.raises(ConfigurationError, match="has an encoder and a decoder"):
        load_local(str(tmp_path / "t5"))
    write(model / "adapter_config.json", {})
    with pytest.raises(ConfigurationError, match="is an adapter: merge it"):
        load_local(str(model))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match="no model that transformers can load"):
        load_local(str(tmp_path / "empty"))
    with pytest.raises(NotFoundError, match="There is no folder"):
        load_local(str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="Pooling is mean, cls, last; not 'max'"):
        load_local("minilm", pooling="max")  # type: ignore[arg-type]


def test_a_tokenizer_in_python() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ConfigurationError, match=r"has no tokenizer\.json"):
        tokenizer_files(Slow(), "slow", chat=False)


def test_the_library_is_left_as_talkative_as_it_was(model: Path) -> None:
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_local(str(model))
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
