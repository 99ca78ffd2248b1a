"""``mrm encoder export``: a model becomes a folder with one graph, its tokenizer and what was measured; imports torch.

What is written was run: the graph's vectors are compared with those of the model itself, one text at a time and without
padding, before anything is published. Not so a bfloat16 graph, which ONNX Runtime runs on GPUs only: what is compared,
and kept as the probe, are vectors of torch with the same weights. Whoever opens it first runs it, against that probe.
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
from mrm_sdk.encoders.export.graphs import to_onnx
from mrm_sdk.encoders.export.local_model import LocalModel, Pooling, load_local
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
_PARITY: Final = 1e-4
_DIRECTIONS: Final = 64
# Of a text's vector with the model's own. Rounding costs far less (all-MiniLM-L6-v2: .999999 in float16, .996 in int8):
# .999 is a distance of 4.5 % of the length, about the probe's tolerance; .95 is 32 %, which is no rounding any more.
_HALF_COSINE: Final = 0.999
_INT8_COSINE: Final = 0.95
_LEAST_COSINE: Final = {"float16": _HALF_COSINE, "bfloat16": _HALF_COSINE, "int8": _INT8_COSINE}
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
    """An encoder in memory, but for weights that are too large for it.

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
        out: the folder; an older encoder there is replaced once the new one is complete, anything else is left alone.
        max_tokens: longer inputs are truncated; by default what the model was made for.
        precision: of the weights. ``float16`` and ``bfloat16`` are for GPUs, ``int8`` for CPUs.
        pooling: of an embedding model; by default what its own files say, else the mean.
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
    beside = next(folder for folder in out.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".mrm-", dir=beside) as scratch:
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
        where = error.filename or beside
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
    """All of :func:`export_encoder` but writing; weights too large for the graph's file are put into ``scratch``."""
    if precision not in get_args(Precision):
        raise ConfigurationError(f"A precision is one of {', '.join(get_args(Precision))}; not {precision!r}.")
    began = time.perf_counter()
    progress("loading model", 0, 1)
    local = load_local(model, max_tokens=max_tokens, pooling=pooling, normalize=normalize)
    progress("loading model", 1, 1)
    spec = EncoderSpec(
        kind="onnx",
        name=local.name,
        dimension=_width(local),
        max_tokens=local.max_tokens,
        layout=local.layout,
        precision=precision,
        vocabulary=local.vocabulary,
        model_fingerprint="",
    )
    encode = layout(spec, lambda name: local.files[name])
    texts = [_long(encode, min(local.max_tokens, _LONG_TOKENS)), *texts, PROBE_TEXT]
    tokens = encode(texts)
    exact = _vectors(local, tokens, progress)
    if precision in _TYPES:
        _halve(local.module, _TYPES[precision])
    data = scratch / ENCODER_DATA if _bytes(local.module) > INLINE_BYTES else None
    if precision == "int8" and data is not None:
        raise ConfigurationError(f"{model} is too large for int8; use float16 or bfloat16, and a GPU.")
    progress("exporting encoder", 0, 1)
    graph = _graph(local, data)
    progress("exporting encoder", 1, 1)
    if precision == "int8":
        from mrm_sdk.encoders.export.quantisation import quantise

        graph = quantise(graph, [_inputs(local, [row]) for row in tokens[1:]], progress=progress)
    files: dict[EncoderFile, bytes | Path] = {ENCODER: graph, **local.files}
    if data is not None:
        files[ENCODER_DATA] = data
    run = precision != "bfloat16"
    if not run:
        found = _vectors(local, tokens, progress)
    else:
        read = {ENCODER: graph, **local.files}
        found = OnnxEncoder(lambda name: read[name], spec, settings=Settings(providers="cpu"), folder=scratch).encode(
            texts
        )
    _check(local.name, precision, found, exact)
    measured = {"graph_run": run, "longest": max(len(row.ids) for row in tokens), **_error(found, exact)}
    metrics = {**local.notes, **measured, "seconds": round(time.perf_counter() - began, 1)}
    identified = spec.model_copy(update={"graph": sha256_of(graph), "probe": Probe.of(found[-1])})
    return Exported(
        identified.of_files({name: sha256_of(content) for name, content in files.items()}),
        files,
        metrics,
        local.licence,
    )


def _long(encode: Callable[[Texts], list[Tokens]], most: int) -> tuple[str | None, str]:
    """A text of ``most`` tokens or, where the model takes more, up to one sample more: the sample, repeated."""
    text = once = " ".join(response for _, response in SAMPLE) + " "
    # The second limit is for a chat template that leaves text out.
    while len(encode([(None, text)])[0].ids) < most and len(text) < 16 * most:
        text += once
    return None, text


def _graph(local: LocalModel, data: Path | None) -> bytes:
    # Sizes of at least 2, and different ones: what is 1, or equal, would be taken for constant.
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
def _vectors(local: LocalModel, tokens: Sequence[Tokens], progress: Progress) -> NDArray[np.float32]:
    """The model's own vectors [n, D], one text at a time: what the graph's are compared with."""
    rows = []
    for number, row in enumerate(tokens):
        inputs = {name: torch.from_numpy(array) for name, array in _inputs(local, [row]).items()}
        rows.append(local.module(**inputs)[0].numpy())
        progress("measuring", number + 1, len(tokens))
    return np.stack(rows)


@torch.inference_mode()
def _width(local: LocalModel) -> int:
    return int(local.module(**{name: torch.ones(1, 2, dtype=torch.int64) for name in local.inputs}).shape[1])


def _halve(module: nn.Module, dtype: torch.dtype) -> None:
    # Buffers stay: half of the bits of a rotary embedding's frequencies would move far positions apart.
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def _bytes(module: nn.Module) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())


def _error(found: NDArray[np.float32], exact: NDArray[np.float32]) -> dict[str, float]:
    """What vectors [n, D] lost against exact ones, and how often that would change which of two answers is better."""
    directions = np.random.default_rng(0).standard_normal((exact.shape[1], _DIRECTIONS))
    first, second = np.triu_indices(len(exact), 1)
    before, after = ((vectors @ directions)[first] > (vectors @ directions)[second] for vectors in (exact, found))
    return {
        "texts": len(exact),
        "largest_difference": float(np.abs(found - exact).max()),
        "least_cosine": _least_cosine(found, exact),
        "orders_changed": float((before != after).mean()),
    }


def _least_cosine(found: NDArray[np.float32], exact: NDArray[np.float32]) -> float:
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    return float(((found * exact).sum(1) / np.maximum(lengths, 1e-12)).min())


def _check(name: str, precision: Precision, found: NDArray[np.float32], exact: NDArray[np.float32]) -> None:
    if not np.isfinite(exact).all():
        raise EncoderError(f"{name} gives NaN or infinity for ordinary text: its weights are damaged.")
    if not np.isfinite(found).all():
        raise EncoderError(f"{name} overflows in {precision}; export it as bfloat16 or float32.")
    difference = float(np.abs(found - exact).max())
    if precision == "float32" and difference > _PARITY * max(1.0, float(np.abs(exact).max())):
        raise EncoderError(f"The graph of {name} differs from the model by {difference:.2e}; nothing was written.")
    least, cosine = _LEAST_COSINE.get(precision), _least_cosine(found, exact)
    if least is not None and not cosine >= least:
        raise EncoderError(
            f"{name} in {precision} has a cosine of {cosine:.4f} to the model's own vector for one text, where {least} "
            "is the least that is of use; nothing was written. Export it in another precision."
        )
