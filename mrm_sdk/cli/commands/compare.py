"""``mrm compare``: several methods on the same users of a data set, as a table, as JSON and as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mrm_sdk.cli.options import (
    ColumnOption,
    DatasetArgument,
    EncoderOption,
    FormatOption,
    JsonOption,
    TextsOption,
    numbers,
)
from mrm_sdk.cli.output import require_file, show
from mrm_sdk.cli.progress import progress
from mrm_sdk.cli.reading import read_for_learning, say_refused
from mrm_sdk.errors import ConfigurationError


def compare(
    dataset: DatasetArgument,
    unseen: Annotated[
        Path | None, typer.Option(help="Judge these users, by fits to all of the others.", show_default=False)
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Over users, without --unseen: 5 if not given.", show_default=False)
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="A run each, of splits and fits: 0,1,2 if not given.", show_default=False)
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="population,per-user,lore,in-context,paper,newton; all if not given.", show_default=False),
    ] = None,
    shots: Annotated[
        str | None, typer.Option(help="Numbers of comparisons to adapt to: 0,2,5,10,20,40,60.", show_default=False)
    ] = None,
    texts: TextsOption = "auto",
    encoder: EncoderOption = "minilm",
    report_file: Annotated[Path | None, typer.Option("--report", help="Also write one HTML page here.")] = None,
    data_format: FormatOption = "auto",
    column: ColumnOption = None,
    json_file: JsonOption = None,
) -> None:
    """Compares methods on the same users; no fit has seen the users that it is judged on."""
    from mrm_sdk.evaluation.methods import METHODS
    from mrm_sdk.evaluation.texts import as_texts

    known_texts = as_texts(texts)
    chosen_seeds = None if seeds is None else numbers(seeds, "--seeds")
    chosen_shots = None if shots is None else numbers(shots, "--shots")
    chosen_methods = METHODS if methods is None else {name: METHODS[name] for name in _names(methods, list(METHODS))}
    # Fits take minutes: what would fail after them is tried before.
    for path in (json_file, report_file):
        require_file(path)
    if report_file is not None:
        from mrm_sdk.evaluation.reports.figures import require_matplotlib

        require_matplotlib()
    with progress() as report:
        report("reading", 0, 1)
        # Before torch is loaded: an error in a file is reported at once.
        data = read_for_learning(dataset, data_format, column=column)
        judged = None if unseen is None else read_for_learning(unseen, data_format, column=column)
        report("reading", 1, 1)
        from mrm_sdk.evaluation.comparison import SEEDS
        from mrm_sdk.evaluation.comparison import compare as run
        from mrm_sdk.evaluation.protocol import SHOTS
        from mrm_sdk.evaluation.reports.comparison import comparison_page, comparison_table
        from mrm_sdk.evaluation.reports.page import write_text

        standings = run(
            data,
            chosen_methods,
            unseen=judged,
            folds=folds,
            seeds=SEEDS if chosen_seeds is None else chosen_seeds,
            shots=SHOTS if chosen_shots is None else chosen_shots,
            texts=known_texts,
            encoder=encoder,
            progress=report,
            on_refused=say_refused,
        )
    # Printed before any file is written: a full disk must not cost the result.
    show(comparison_table(standings), standings.as_json(), json_file)
    if report_file is not None:
        write_text(report_file, comparison_page(standings, "Methods compared"))


def _names(text: str, known: list[str]) -> list[str]:
    names = [name.strip().replace("-", "_") for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ConfigurationError(f"There is no method {name!r}; use some of {', '.join(known)}.")
    return list(dict.fromkeys(names))
