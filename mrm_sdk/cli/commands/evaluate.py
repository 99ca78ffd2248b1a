"""``mrm evaluate``: a bundle on users it was not trained on, before and after adapting."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mrm_sdk.cli.options import (
    ColumnOption,
    DatasetArgument,
    FeedbackOption,
    FormatOption,
    JsonOption,
    TextsOption,
    numbers,
)
from mrm_sdk.cli.output import STDOUT, echo, require_file, say, show
from mrm_sdk.cli.progress import progress
from mrm_sdk.cli.reading import read_for_learning, say_refused
from mrm_sdk.errors import ConfigurationError, OutputError


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    dataset: DatasetArgument,
    shots: Annotated[
        str | None, typer.Option(help="Numbers of comparisons to adapt to: 0,2,5,10,20,40,60.", show_default=False)
    ] = None,
    texts: TextsOption = "auto",
    picture: Annotated[Path | None, typer.Option(help="Also write accuracy.svg and accuracy.html here.")] = None,
    data_format: FormatOption = "auto",
    column: ColumnOption = None,
    feedback: FeedbackOption = "comparisons",
    json_file: JsonOption = None,
) -> None:
    """Judges a bundle on users who took no part in training: before, after, and with another user's weights."""
    from mrm_sdk.bundle import Bundle
    from mrm_sdk.encoders import open_encoder
    from mrm_sdk.evaluation.protocol import SHOTS
    from mrm_sdk.evaluation.protocol import evaluate as run
    from mrm_sdk.evaluation.reports.evaluation import evaluation_table, save_evaluation
    from mrm_sdk.evaluation.reports.figures import require_matplotlib
    from mrm_sdk.evaluation.texts import as_texts

    known_texts = as_texts(texts)
    shot_numbers: Sequence[int] = SHOTS if shots is None else numbers(shots, "--shots")
    if feedback == "ratings":
        if shots is not None:
            raise ConfigurationError("--shots counts comparisons, and --feedback ratings has none: leave --shots out.")
        shot_numbers = (0, sys.maxsize)
    require_file(json_file)
    if picture is not None:
        if picture.exists() and not picture.is_dir():
            raise OutputError(f"{picture} is not a folder; choose another place.")
        require_matplotlib()
    loaded = Bundle(bundle)
    with progress() as report:
        report("reading", 0, 1)
        data = read_for_learning(dataset, data_format, feedback, column=column, alone=True)
        report("reading", 1, 1)
        encoder = open_encoder(None, loaded)
        result = run(
            loaded, data, encoder, shots=shot_numbers, texts=known_texts, progress=report, on_refused=say_refused
        )
    # Printed before any file is written: a full disk must not cost the result.
    show(evaluation_table(result), result.as_json(), json_file)
    tell = say if json_file == STDOUT else echo
    if loaded.manifest.training.get("data", {}).get("sha256") == data.sha256:
        tell("\nThe bundle was trained on these users, which flatters it. Judge it on others.")
    if picture is not None:
        for path in save_evaluation(result, picture, f"{loaded.manifest.name}: personalization"):
            tell(f"written  {path}")
