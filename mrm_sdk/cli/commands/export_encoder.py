"""``mrm encoder export``: a model becomes a folder that bundles are trained with."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from mrm_sdk.bundle.encoder_spec import Precision
from mrm_sdk.cli.output import echo
from mrm_sdk.cli.progress import progress
from mrm_sdk.encoders.export.local_model import Pooling
from mrm_sdk.encoders.export.pipeline import export_encoder
from mrm_sdk.simulation.corpus import load_corpus

# Enough to tell a good graph from a bad one, and few enough for a model of billions of weights on a CPU.
_TEXTS = 32


def run(
    model: str,
    out: Path,
    *,
    max_tokens: int | None,
    precision: str,
    pooling: str | None,
    normalize: bool | None,
    licence: str | None,
    as_json: bool,
) -> None:
    """Exports, and prints what came out.

    Raises:
        MrmError: as for :func:`~mrm_sdk.encoders.export.pipeline.export_encoder`.
    """
    texts = [(question.prompt, question.answers[number % 4]) for number, question in enumerate(load_corpus()[:_TEXTS])]
    with progress() as report:
        manifest = export_encoder(
            model,
            out,
            max_tokens=max_tokens,
            precision=cast(Precision, precision),
            pooling=cast("Pooling | None", pooling),
            normalize=normalize,
            licence=licence,
            texts=texts,
            progress=report,
        )
    if as_json:
        echo(manifest.model_dump_json(indent=2))
        return
    spec, metrics = manifest.encoder, manifest.metrics
    size = sum(path.stat().st_size for path in out.iterdir())
    echo(f"encoder      {out}  ({size / 1e6:,.0f} MB)")
    echo(f"fingerprint  {spec.model_fingerprint}")
    echo(f"vectors      {spec.dimension} numbers, {metrics['pooling']} pooling, of at most {spec.max_tokens} tokens")
    echo(
        f"{spec.precision:11}  differs from the model by {metrics['largest_difference']:.1e} at most; "
        f"least cosine {metrics['least_cosine']:.6f}; {metrics['orders_changed']:.2%} of orders changed"
    )
    if not metrics["graph_run"]:
        echo("note         measured in torch: this graph runs on GPUs only, and was not run here")
    if "note" in metrics:
        echo(f"note         {metrics['note']}")
    echo(f"use it with  mrm train DATASET --encoder {out} --out BUNDLE")
