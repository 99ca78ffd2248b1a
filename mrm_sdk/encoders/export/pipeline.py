"""``mrm encoder export``: a model becomes a folder with one graph, its tokenizer and what was measured.

The graph is run before anything is written: its vectors are compared with those of the model itself, one text at a time
and without padding. A bfloat16 graph is not, because ONNX Runtime runs it on GPUs only: its vectors, and its probe, are
those of torch with the same weights, and the first process that opens it checks it against that probe.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mrm_sdk.bundle.encoder_spec import (
    ENCODER,
    ENCODER_DATA,
    PROBE_TEXT,
    EncoderFile,
    EncoderSpec,
    Precision,
    Probe,
)
from mrm_sdk.bundle.hashing import sha256_of
from mrm_sdk.bundle.writing import check_output
from mrm_sdk.core.torch_defaults import own_torch_defaults
from mrm_sdk.encoders.export.graphs import to_onnx
from mrm_sdk.encoders.export.local_model import LocalModel, load_local
from mrm_sdk.encoders.export.parity import measure_parity, require_parity
from mrm_sdk.encoders.export.sentence_transformers import Pooling
from mrm_sdk.encoders.folder import ENCODER_JSON, EncoderManifest, write_encoder
from mrm_sdk.encoders.onnx import INPUTS, POOLED, OnnxEncoder, padded
from mrm_sdk.encoders.tokenization import Tokens, layout
from mrm_sdk.errors import ConfigurationError, EncoderError, MrmError, OutputError
from mrm_sdk.progress import Progress, no_progress
from mrm_sdk.settings import Settings
from mrm_sdk.version import __version__

Texts = Sequence[tuple[str | None, str]]

# A protobuf message holds 2 GB; above this the weights lie beside the graph.
INLINE_BYTES: Final = 1_500_000_000
# Scaled positions and sliding windows show in long texts only; a longer one than this would take minutes on a CPU.
_LONG_TOKENS: Final = 2048
_TYPES: Final = {"float16": torch.float16, "bfloat16": torch.bfloat16}

SAMPLE: Final[Texts] = (
    ("How do I boil an egg?", "Put it into boiling water for seven minutes, then into cold water."),
    ("How do I boil an egg?", "Eggs? I would not. Have some toast instead!"),
    (
        "Is it safe to eat raw dough?",
        "No. Raw flour and raw eggs can both carry bacteria, which only heat kills.",
    ),
    ("Is it safe to eat raw dough?", "- flour: may carry E. coli\n- eggs: may carry salmonella\n\nSo: better not."),
    ("Write a function that adds two numbers.", "```python\ndef add(a, b):\n    return a + b\n```"),
    ("Explain gravity to a child.", "The Earth is like a big magnet for everything: it pulls you and your ball down."),
    ("Explain gravity to a child.", "Mass curves spacetime, and free bodies follow geodesics of that curved metric."),
    ("¿Cuál es la capital de Perú?", "Lima."),
    ("Was ist ein Fahrrad?", "Ein Fahrzeug mit zwei Rädern, das mit Pedalen angetrieben wird."),
    ("天気はどうですか。", "今日は晴れています。"),
    ("ما هي عاصمة مصر؟", "القاهرة 🙂"),
    (None, "Thanks! That helped a lot."),
    (None, "I am not sure, and I would rather say so than guess."),
    (None, "The meeting moved to 14:30 on 3 May; the room stays the same, and so does the agenda."),
    ("Summarise the plot of Faust.", "A scholar sells his soul for knowledge and pleasure. " * 6),
    ("Should I learn to swim?", "Yes."),
)


@dataclass(frozen=True)
class Exported:
    """An encoder in memory, except for weights that are too large.

    Args:
        spec: what it is.
        files: by name; ``encoder.onnx.data`` as a path.
        metrics: what was measured.
        licence: of the model.
    """

    spec: EncoderSpec
    files: Mapping[EncoderFile, bytes | Path]
    metrics: Mapping[str, Any]
    licence: str


@own_torch_defaults()
def export_encoder(
    model: str,
    out: str | Path,
    *,
    max_tokens: int | None = None,
    precision: Precision = "float32",
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    licence: str | None = None,
    texts: Texts = SAMPLE,
    progress: Progress = no_progress,
) -> EncoderManifest:
    """Writes a model as an encoder's folder, which ``mrm train --encoder FOLDER`` takes.

    Args:
        model: ``minilm``, a folder, or a name on the hub; see :func:`~mrm_sdk.encoders.export.local_model.load_local`.
        out: the folder; an older encoder there is replaced once the new one is complete, other files are an error.
        max_tokens: longer inputs are truncated; by default what the model was made for.
        precision: of the weights. ``float16`` and ``bfloat16`` are for GPUs, ``int8`` for CPUs.
        pooling: of an embedding model; by default the one that its own files name, else the mean.
        normalize: scale vectors to length 1; by default what the model's files say.
        licence: of the model; by default what its card says.
        texts: (prompt or ``None``, response) pairs to measure on; a long one is added.
        progress: called with stage, done, total.

    Raises:
        OutputError: ``out`` cannot be written.
        NotFoundError: there is no such model.
        ConfigurationError: it is of a kind that cannot be exported, or an argument is out of range.
        EncoderError: its graph does not give its vectors.
        MissingDependencyError: an extra is not installed.
    """
    out = Path(out)
    check_output(out, ENCODER_JSON)
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".mrm-", dir=parent) as scratch:
            exported = prepare_export(
                model,
                Path(scratch),
                max_tokens=max_tokens,
                precision=precision,
                pooling=pooling,
                normalize=normalize,
                texts=texts,
                progress=progress,
            )
            return write_encoder(
                out,
                exported.files,
                spec=exported.spec,
                sdk_version=__version__,
                licence=licence or exported.licence,
                metrics=exported.metrics,
            )
    except OSError as error:
        where = error.filename or parent
        raise OutputError(
            f"{where} cannot be read or written: {error.strerror or error}. Check who may, and the space on its disk."
        ) from None


def prepare_export(
    model: str,
    scratch: Path,
    *,
    max_tokens: int | None = None,
    precision: Precision = "float32",
    pooling: Pooling | None = None,
    normalize: bool | None = None,
    texts: Texts = SAMPLE,
    progress: Progress = no_progress,
) -> Exported:
    """Does all of :func:`export_encoder` except writing; weights too large for one file are put into ``scratch``."""
    if precision not in get_args(Precision):
        raise ConfigurationError(f"A precision is one of {', '.join(get_args(Precision))}; not {precision!r}.")
    began = time.perf_counter()
    progress("loading model", 0, 1)
    local = load_local(model, max_tokens=max_tokens, pooling=pooling, normalize=normalize)
    progress("loading model", 1, 1)
    spec = _spec(local, precision)
    encode = layout(spec, lambda name: local.files[name])
    texts = [_long_text(encode, min(local.max_tokens, _LONG_TOKENS)), *texts, PROBE_TEXT]
    tokens = encode(texts)
    exact = _model_vectors(local, tokens, progress)
    if precision in _TYPES:
        _convert_parameters(local.module, _TYPES[precision])
    files = _files(local, precision, tokens, scratch, progress)
    graph_run = precision != "bfloat16"  # ONNX Runtime runs bfloat16 on GPUs only: torch's vectors are compared instead
    vectors = _graph_vectors(files, spec, scratch, texts) if graph_run else _model_vectors(local, tokens, progress)
    require_parity(local.name, precision, vectors, exact)
    hashes = {name: sha256_of(content) for name, content in files.items()}
    identified = spec.model_copy(update={"graph": hashes[ENCODER], "probe": Probe.of(vectors[-1])})
    metrics = {
        **local.notes,
        "graph_run": graph_run,
        "longest": max(len(row.ids) for row in tokens),
        **measure_parity(vectors, exact),
        "seconds": round(time.perf_counter() - began, 1),
    }
    return Exported(identified.of_files(hashes), files, metrics, local.licence)


def _spec(local: LocalModel, precision: Precision) -> EncoderSpec:
    return EncoderSpec(
        kind="onnx",
        name=local.name,
        dimension=_width(local),
        max_tokens=local.max_tokens,
        layout=local.layout,
        truncation="longest_first" if local.layout == "chat" else "conversation",
        precision=precision,
        vocabulary=local.vocabulary,
        model_fingerprint="",
    )


def _files(
    local: LocalModel, precision: Precision, tokens: Sequence[Tokens], scratch: Path, progress: Progress
) -> dict[EncoderFile, bytes | Path]:
    """The graph, its weights if they are too large for the graph's file, and the tokenizer's files."""
    data = scratch / ENCODER_DATA if _bytes(local.module) > INLINE_BYTES else None
    if precision == "int8" and data is not None:
        raise ConfigurationError(f"{local.name} is too large for int8; use float16 or bfloat16, and a GPU.")
    progress("exporting encoder", 0, 1)
    graph = _graph(local, data)
    progress("exporting encoder", 1, 1)
    if precision == "int8":
        from mrm_sdk.encoders.export.quantisation import quantise

        graph = quantise(graph, [_inputs(local, [row]) for row in tokens[1:]], progress=progress)
    files: dict[EncoderFile, bytes | Path] = {ENCODER: graph, **local.files}
    if data is not None:
        files[ENCODER_DATA] = data
    return files


def _graph_vectors(
    files: Mapping[EncoderFile, bytes | Path], spec: EncoderSpec, scratch: Path, texts: Texts
) -> NDArray[np.float32]:
    """The vectors [n, D] of the exported graph, on the CPU."""

    def read(name: EncoderFile) -> bytes:
        content = files[name]
        return content if isinstance(content, bytes) else content.read_bytes()

    return OnnxEncoder(read, spec, settings=Settings(providers="cpu"), folder=scratch).encode(texts)


def _long_text(encode: Callable[[Texts], list[Tokens]], most: int) -> tuple[str | None, str]:
    """The sample, repeated to ``most`` tokens or slightly more."""
    text = once = " ".join(response for _, response in SAMPLE) + " "
    # The second limit is for a chat template that drops text.
    while len(encode([(None, text)])[0].ids) < most and len(text) < 16 * most:
        text += once
    return None, text


def _graph(local: LocalModel, data: Path | None) -> bytes:
    # Sizes of at least 2, and different ones: the exporter takes sizes of 1, or equal ones, for constants.
    example = {name: torch.ones(2, 7, dtype=torch.int64) for name in local.inputs}
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        return to_onnx(local.module, example, dict.fromkeys(local.inputs, sizes), POOLED, data=data)
    except (MrmError, OSError):
        raise
    except Exception as error:  # the exporter's exceptions share no public base class
        said = " ".join(str(error).split())[:300]
        raise EncoderError(f"{local.name} cannot be exported to ONNX: {type(error).__name__}: {said}") from error


def _inputs(local: LocalModel, rows: Sequence[Tokens]) -> dict[str, NDArray[np.int64]]:
    return {name: array for name, array in zip(INPUTS, padded(rows), strict=True) if name in local.inputs}


@torch.inference_mode()
def _model_vectors(local: LocalModel, tokens: Sequence[Tokens], progress: Progress) -> NDArray[np.float32]:
    """The model's own vectors [n, D], one text at a time, to compare those of the graph with."""
    rows = []
    for number, row in enumerate(tokens):
        inputs = {name: torch.from_numpy(array) for name, array in _inputs(local, [row]).items()}
        rows.append(local.module(**inputs)[0].numpy())
        progress("measuring", number + 1, len(tokens))
    return np.stack(rows)


@torch.inference_mode()
def _width(local: LocalModel) -> int:
    return int(local.module(**{name: torch.ones(1, 2, dtype=torch.int64) for name in local.inputs}).shape[1])


def _convert_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    # Buffers stay: in half precision the frequencies of rotary embeddings would move far positions.
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
