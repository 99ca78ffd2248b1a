"""``mrm encoder export``: a model becomes a folder that bundles are trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mrm_sdk.cli.options import JsonOption
from mrm_sdk.cli.output import require_file, show
from mrm_sdk.cli.parser import Command, Commands
from mrm_sdk.cli.progress import progress

if TYPE_CHECKING:
    from mrm_sdk.bundle.encoder_spec import Precision
    from mrm_sdk.encoders.export.sentence_transformers import Pooling
    from mrm_sdk.encoders.folder import EncoderManifest

# Enough to tell a good graph from a bad one, and few enough for a model of billions of weights on a CPU.
_VERIFICATION_TEXTS = 32

app = typer.Typer(cls=Commands, help="Encoders that bundles can carry.", no_args_is_help=True)


@app.command(cls=Command)
def export(
    model: Annotated[str, typer.Argument(help="minilm, a folder, or a name on the hub.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The encoder's folder; an older encoder there is replaced.")],
    max_tokens: Annotated[int | None, typer.Option(help="Truncate longer texts.", show_default=False)] = None,
    precision: Annotated[str, typer.Option(help="float32, float16 or bfloat16 (GPUs), int8 (CPUs).")] = "float32",
    pooling: Annotated[str | None, typer.Option(help="mean, cls or last.", show_default=False)] = None,
    normalize: Annotated[
        bool | None, typer.Option(help="Scale vectors to length 1, or not.", show_default=False)
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the model; by default its card's.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Makes a model an encoder that bundles can carry: one graph, verified against the model."""
    from mrm_sdk.encoders.export.pipeline import export_encoder
    from mrm_sdk.simulation.corpus import load_corpus

    require_file(json_file)
    questions = load_corpus()[:_VERIFICATION_TEXTS]
    texts = [(question.prompt, question.answers[number % 4]) for number, question in enumerate(questions)]
    with progress() as report:
        manifest = export_encoder(
            model,
            out,
            max_tokens=max_tokens,
            precision=cast("Precision", precision),
            pooling=cast("Pooling | None", pooling),
            normalize=normalize,
            licence=licence,
            texts=texts,
            progress=report,
        )
    show(_summary(manifest, out), manifest.model_dump(mode="json"), json_file)


def _summary(manifest: EncoderManifest, out: Path) -> str:
    spec, metrics = manifest.encoder, manifest.metrics
    size = sum(path.stat().st_size for path in out.iterdir())
    lines = [
        f"encoder      {out}  ({size / 1e6:,.0f} MB)",
        f"fingerprint  {spec.model_fingerprint}",
        f"vectors      {spec.dimension} numbers, {metrics['pooling']} pooling, of at most {spec.max_tokens} tokens",
        f"{spec.precision:11}  differs from the model by {metrics['largest_difference']:.1e} at most; "
        f"least cosine {metrics['least_cosine']:.6f}; {metrics['orders_changed']:.2%} of orders changed",
    ]
    if not metrics["graph_run"]:
        lines.append("note         measured in torch: this graph runs on GPUs only, and was not run here")
    if "note" in metrics:
        lines.append(f"note         {metrics['note']}")
    return "\n".join([*lines, f"use it with  mrm train DATASET --encoder {out} --out BUNDLE"])
