"""Parts of ``gpu_check``: texts per second and the latency of one request, with base rewards joined to the encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mrm_sdk.bundle.bundle import REWARDS
from mrm_sdk.bundle.encoder_spec import ENCODER
from mrm_sdk.encoders.batching import token_batches
from mrm_sdk.encoders.export.local_model import load_local
from mrm_sdk.encoders.export.pipeline import export_encoder
from mrm_sdk.encoders.onnx import INPUTS, POOLED, padded
from mrm_sdk.encoders.tokenization import layout
from mrm_sdk.runtime.providers import CPU, CUDA, onnxruntime, with_options
from mrm_sdk.runtime.session import GraphSession
from tests.benchmarks.gpu_place import Place, texts, words

_TEXTS_PER_SECOND, _MILLISECONDS = 20_000, 2.0
_CALLS = 1000
_BUDGETS = (4_096, 16_384, 32_768, 131_072)
_REQUEST = "Which of these would you rather hear from a friend?"

Batch = dict[str, NDArray[np.int64]]


def models(place: Place) -> Iterator[dict[str, Any]]:
    """Exports the encoder in every precision, for the parts that follow."""
    if place.bundle is not None:
        yield {"what": f"encoder of {place.bundle.name}"}
        return
    if not place.model.exists():
        write_random_model(place)
    for precision in place.wanted:
        began = time.perf_counter()
        manifest = export_encoder(str(place.model), place.folder / precision, precision=precision, max_tokens=256)  # type: ignore[arg-type]
        yield {
            "what": f"{place.model.name}, {precision}",
            "seconds": time.perf_counter() - began,
            "least_cosine": manifest.metrics["least_cosine"],
            "orders_changed": manifest.metrics["orders_changed"],
        }


def write_random_model(place: Place) -> None:
    """A model of all-MiniLM-L6-v2's shape with random weights, and a tokenizer of its kind with a corpus's words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    known = {word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(" ".join(words())))}
    letters = sorted({letter for word in known for letter in word})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    names = dict.fromkeys([*special, *letters, *(f"##{letter}" for letter in letters), *sorted(known)])
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=256,
        model_input_names=list(INPUTS),
    )
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    full = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    torch.manual_seed(0)
    config = BertConfig(**(small if place.rehearse else full), vocab_size=len(vocabulary), max_position_embeddings=512)
    BertModel(config).save_pretrained(place.model)
    whole.save_pretrained(place.model)


def latency(place: Place) -> Iterator[dict[str, Any]]:
    """One request of four answers, from text to base rewards; and its graph alone, with IO binding and without."""
    request = [(_REQUEST, answer) for _, answer in texts(4, 20, 60)]
    for precision in place.precisions:
        if precision == "bfloat16":
            continue
        encoder = place.encoder(precision)
        row = _quantiles(f"request, {precision}", lambda e=encoder: e.base_rewards(request), place)
        if precision == "float32":
            row |= place.aim(_MILLISECONDS, reached=row["median_ms"] < _MILLISECONDS)
        yield row
        opened = graph_session(place, precision)
        (batch,) = batches(place, precision, request, 10**6, opened.inputs)
        yield _quantiles(f"graph alone, {precision}", lambda s=opened, b=batch: s.run(b, REWARDS), place)
        plain = plain_session(place, precision)
        yield _quantiles(
            f"graph alone, no IO binding, {precision}", lambda s=plain, b=batch: s.run([REWARDS], b), place
        )


def _quantiles(what: str, work: Callable[[], object], place: Place) -> dict[str, Any]:
    for _ in range(place.some(50, 3)):
        work()
    taken = np.empty(place.some(_CALLS, 20))
    for number in range(len(taken)):
        began = time.perf_counter()
        work()
        taken[number] = 1e3 * (time.perf_counter() - began)
    return {
        "what": what,
        "calls": len(taken),
        "median_ms": float(np.median(taken)),
        "p99_ms": float(np.quantile(taken, 0.99)),
    }


def speed(place: Place) -> Iterator[dict[str, Any]]:
    """Short texts to base rewards: with tokenisation, and from tokens; for several budgets of tokens."""
    sample = short_texts(place)
    for precision in place.precisions:
        opened = graph_session(place, precision)
        for budget in _BUDGETS if precision == place.precisions[0] and not place.rehearse else _BUDGETS[2:3]:
            encoder = place.encoder(precision, encode_tokens=budget)
            whole = place.seconds(lambda e=encoder: e.base_rewards(sample), 3)
            ready = batches(place, precision, sample, budget, opened.inputs)
            alone = place.seconds(lambda s=opened, r=ready: [s.run(batch, REWARDS) for batch in r], 3)
            rate = len(sample) / whole
            row = {
                "what": f"{len(sample):,} short texts, {precision}",
                "encode_tokens": budget,
                "texts_per_second": rate,
                "from_tokens": len(sample) / alone,
            }
            if precision == "float32":
                row |= place.aim(_TEXTS_PER_SECOND, reached=rate >= _TEXTS_PER_SECOND)
            yield row


def eager(place: Place) -> Iterator[dict[str, Any]]:
    """The same model and the same batches in eager PyTorch, from tokens to vectors on the host."""
    if place.bundle is not None:
        yield {"what": "left out: a bundle holds no model for PyTorch"}
        return
    sample = short_texts(place)
    for precision in place.precisions:
        local = load_local(str(place.model), max_tokens=256)
        ready = batches(place, precision, sample, 32_768, frozenset(local.inputs))
        module = local.module.to(place.device, getattr(torch, precision)).eval()
        taken = place.seconds(lambda m=module, r=ready: _encode(m, r, place.device), 3)
        yield {"what": f"{len(sample):,} short texts, {precision}", "from_tokens": len(sample) / taken}


@torch.inference_mode()
def _encode(module: torch.nn.Module, ready: Sequence[Batch], device: torch.device) -> list[torch.Tensor]:
    return [
        module(**{name: torch.from_numpy(array).to(device) for name, array in batch.items()}).cpu() for batch in ready
    ]


def short_texts(place: Place) -> list[tuple[None, str]]:
    """5 to 30 words each."""
    return texts(place.some(10_000, 60))


def batches(
    place: Place, precision: str, sample: Sequence[tuple[str | None, str]], budget: int, wanted: frozenset[str]
) -> list[Batch]:
    """Texts as the graph takes them, with the inputs that are wanted."""
    spec, files, _ = place.files(precision)
    tokens = layout(spec, lambda name: files[name])(sample)
    return [
        {
            name: np.ascontiguousarray(array)
            for name, array in zip(INPUTS, padded([tokens[row] for row in rows]), strict=True)
            if name in wanted
        }
        for rows in token_batches([len(row.ids) for row in tokens], budget)
    ]


def graph_session(place: Place, precision: str) -> GraphSession:
    """The encoder's graph as the encoder itself opens it."""
    _, files, _ = place.files(precision)
    return GraphSession(
        ENCODER,
        lambda: files[ENCODER],
        frozenset(INPUTS[:2]),
        frozenset([POOLED, REWARDS]),
        place.settings(),
        optional=frozenset([INPUTS[2]]),
        folder=place.bundle,
    )


def plain_session(place: Place, precision: str) -> Any:
    """The same graph in a session of ONNX Runtime, without what this package puts around it."""
    runtime = onnxruntime()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if place.bundle is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(place.bundle))
    asked = [CPU] if place.rehearse else [CUDA, CPU]
    _, files, _ = place.files(precision)
    providers = [with_options(name, place.settings()) for name in asked]
    return runtime.InferenceSession(files[ENCODER], options, providers=providers, enable_fallback=0)
