"""``mrm train``: users' comparisons become a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrm_sdk.cli.options import (
    ColumnOption,
    DatasetArgument,
    EncoderOption,
    FeedbackOption,
    FormatOption,
    JsonOption,
    SeedOption,
    SkipBadOption,
    age,
)
from mrm_sdk.cli.output import echo
from mrm_sdk.cli.progress import progress
from mrm_sdk.cli.reading import read_for_learning

if TYPE_CHECKING:
    from mrm_sdk.bundle import Manifest


def train(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="The bundle's folder; an older bundle there is replaced.")],
    preset: Annotated[str, typer.Option(help="newton, or paper: the published method.")] = "newton",
    encoder: EncoderOption = "minilm",
    handcrafted: Annotated[
        bool, typer.Option("--handcrafted", help="Put features counted in the text beside the embedding.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, or auto.")] = "cpu",
    half_life: Annotated[
        str | None, typer.Option(help="Age at which a judgement counts half: 90d, 12h.", show_default=False)
    ] = None,
    seed: SeedOption = 0,
    name: Annotated[str | None, typer.Option(help="Of the bundle; its folder's by default.")] = None,
    licence: Annotated[str, typer.Option(help="Of the training data, for the manifest.")] = "not stated",
    data_format: FormatOption = "auto",
    column: ColumnOption = None,
    skip_bad: SkipBadOption = False,
    feedback: FeedbackOption = "comparisons",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep the state here, and resume from it.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Meta-trains on a data set and writes a verified bundle."""
    from mrm_sdk.training.config import TrainingConfig

    config = TrainingConfig.preset(preset, seed=seed).with_settings(device=device)
    half = None if half_life is None else age(half_life, "--half-life")
    try:
        with progress() as report:
            report("reading", 0, 1)
            # Before torch is loaded: an error in a file is reported at once.
            data = read_for_learning(
                dataset, data_format, feedback, column=column, skip_bad=skip_bad, limit=config.max_pairs
            )
            report("reading", 1, 1)
            from mrm_sdk.training.pipeline import train_bundle

            manifest = train_bundle(
                data,
                out,
                encoder=encoder,
                handcrafted=handcrafted,
                config=config,
                name=name,
                licence=licence,
                half_life=half,
                checkpoint=checkpoint,
                progress=report,
            )
    except KeyboardInterrupt:
        if checkpoint is None:
            raise
        raise KeyboardInterrupt(f"interrupted; the same command resumes from {checkpoint}") from None
    if as_json:
        echo(manifest.model_dump_json(indent=2))
    else:
        _print_summary(manifest, out, preset, seed)


def _print_summary(manifest: Manifest, out: Path, preset: str, seed: int) -> None:
    from mrm_sdk.training.prior_strength import UNADAPTED

    training, chosen = manifest.training, manifest.metrics.get("chosen")
    users, set_aside = training["users_trained"], training["users_chosen_on"]
    how = "by cross-validation" if set_aside == users else f"on {set_aside} set aside at first"
    echo(f"bundle       {out}")
    echo(f"fingerprint  {manifest.fingerprint}")
    echo(f"users        {users}" + (f"; settings chosen {how}" if chosen else ""))
    if chosen and chosen["prior_strength"] == UNADAPTED:
        echo("Adapting did not help users who were set aside: this bundle gives all users the average user's reward.")
    echo(f"meta-training took {training['seconds']:.1f} s ({preset}, K = {manifest.base_functions}, seed {seed})")
