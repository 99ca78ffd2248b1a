"""The commands and their options; each one's work is in a module of its own, imported when it runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mrm_sdk.cli import INTERRUPTED
from mrm_sdk.cli.output import echo, echo_json, say
from mrm_sdk.errors import ConfigurationError, OutputError
from mrm_sdk.version import __version__


class _Commands(TyperGroup):
    """All commands; Ctrl-C ends each with a line and exit code 130, where typer would say nothing."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            say(str(stop) or INTERRUPTED)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="mrm",
    cls=_Commands,
    help="A reward model for every user of your application.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
db = typer.Typer(help="The database's tables: bring them up to date, or see where they stand.", no_args_is_help=True)
app.add_typer(db, name="db")
encoders = typer.Typer(help="Encoders that bundles can carry.", no_args_is_help=True)
app.add_typer(encoders, name="encoder")

Database = Annotated[
    str, typer.Option("--database", envvar="MRM_DATABASE", help="URL, as sqlite:///mrm.db", show_default=False)
]
Dataset = Annotated[Path, typer.Argument(help="A folder, or a comparisons.jsonl[.gz].", show_default=False)]
Format = Annotated[str, typer.Option("--format", help="auto, own, or another program's (docs/data.md).")]
Feedback = Annotated[str, typer.Option(help="comparisons, or ratings: what users adapt to.")]
Encoder = Annotated[
    str, typer.Option(help="minilm, an exported encoder's folder, remote:PROTOCOL:MODEL, or precomputed.")
]
Seed = Annotated[int, typer.Option(help="The only source of randomness.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        echo(f"mrm-sdk {__version__}")
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the bundle, the database and the picture go.")] = Path("mrm-demo"),
    seed: Seed = 0,
) -> None:
    """Trains a bundle on synthetic people, then plays a host application that personalizes. Takes under a minute."""
    from mrm_sdk.cli.commands.demo import run

    run(out, seed)


@app.command()
def train(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="The bundle's folder; an older bundle there is replaced.")],
    preset: Annotated[str, typer.Option(help="newton, or paper: the published method.")] = "newton",
    encoder: Encoder = "minilm",
    handcrafted: Annotated[
        bool, typer.Option("--handcrafted", help="Put features counted in the text beside the embedding.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, or auto.")] = "cpu",
    half_life: Annotated[
        str | None, typer.Option(help="Age at which a judgement counts half: 90d, 12h.", show_default=False)
    ] = None,
    seed: Seed = 0,
    name: Annotated[str | None, typer.Option(help="Of the bundle; its folder's by default.")] = None,
    licence: Annotated[str, typer.Option(help="Of the training data, for the manifest.")] = "not stated",
    data_format: Format = "auto",
    feedback: Feedback = "comparisons",
    checkpoint: Annotated[
        Path | None, typer.Option(help="Keep the state here, and go on from it.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Meta-trains on a data set and writes a verified bundle."""
    from mrm_sdk.cli.datasets import read
    from mrm_sdk.cli.progress import progress
    from mrm_sdk.training.config import TrainingConfig

    config = replace(TrainingConfig.preset(preset, seed=seed), device=device)
    half = None if half_life is None else _duration(half_life, "--half-life")
    try:
        with progress() as report:
            report("reading", 0, 1)
            # Before torch is loaded: what is wrong with a file is said at once.
            data = read(dataset, data_format, feedback, limit=config.max_pairs)
            report("reading", 1, 1)
            from mrm_sdk.training.pipeline import train_bundle
            from mrm_sdk.training.prior_strength import UNADAPTED

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
        raise KeyboardInterrupt(f"interrupted; the same command goes on from {checkpoint}") from None
    if as_json:
        echo(manifest.model_dump_json(indent=2))
        return
    training = manifest.training
    echo(f"bundle       {out}")
    echo(f"fingerprint  {manifest.fingerprint}")
    chosen = manifest.metrics.get("chosen")
    users, aside = training["users_trained"], training["users_chosen_on"]
    how = "by cross-validation" if aside == users else f"on {aside} set aside at first"
    echo(f"users        {users}" + (f"; settings chosen {how}" if chosen else ""))
    if chosen and chosen["prior_strength"] == UNADAPTED:
        echo("Adapting did not help users who were set aside: this bundle gives everybody the average user's reward.")
    echo(f"meta-training took {training['seconds']:.1f} s ({preset}, K = {manifest.base_functions}, seed {seed})")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder.", show_default=False)],
    dataset: Dataset,
    shots: Annotated[
        str | None, typer.Option(help="Numbers of comparisons to adapt to: 0,2,5,10,20,40,60.", show_default=False)
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the report here, as JSON.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Also write accuracy.svg and accuracy.html here.")] = None,
    data_format: Format = "auto",
    feedback: Feedback = "comparisons",
) -> None:
    """Judges a bundle on users who took no part in training: before, after, and with another user's weights."""
    from mrm_sdk.bundle import Bundle
    from mrm_sdk.cli.datasets import read
    from mrm_sdk.cli.progress import progress
    from mrm_sdk.encoders import open_encoder
    from mrm_sdk.evaluation.protocol import SHOTS
    from mrm_sdk.evaluation.protocol import evaluate as run
    from mrm_sdk.evaluation.reports.evaluation import save, table
    from mrm_sdk.evaluation.reports.figures import require_matplotlib
    from mrm_sdk.evaluation.reports.page import write

    numbers: Sequence[int] = SHOTS if shots is None else _numbers(shots, "--shots")
    if feedback == "ratings":
        if shots is not None:
            raise ConfigurationError(
                "A part of the pairs that ratings make is no number of ratings: leave --shots out."
            )
        numbers = (0, sys.maxsize)
    for folder in (json_file.parent if json_file else None, picture):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is no folder; choose another place.")
    if picture is not None:
        require_matplotlib()
    loaded = Bundle(bundle)
    with progress() as report:
        report("reading", 0, 1)
        data = read(dataset, data_format, feedback)
        report("reading", 1, 1)
        result = run(loaded, data, open_encoder(None, loaded), shots=numbers, progress=report)
    echo(table(result))
    if json_file is not None:
        write(json_file, json.dumps(result.as_json(), indent=2) + "\n")
    if loaded.manifest.training.get("data", {}).get("sha256") == data.sha256:
        echo("\nThese are the users that the bundle was trained on: the figures flatter it. Judge it on others.")
    if picture is not None:
        for path in save(result, picture, f"{loaded.manifest.name}: personalization"):
            echo(f"written  {path}")


@app.command()
def compare(
    dataset: Dataset,
    unseen: Annotated[
        Path | None, typer.Option(help="Judge these users, by fits to all of the others.", show_default=False)
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Over users, without --unseen: 5 if not given.", show_default=False)
    ] = None,
    seeds: Annotated[str, typer.Option(help="A run each, of splits and fits.")] = "0,1,2",
    methods: Annotated[str, typer.Option(help="Which.")] = "population,per-user,lore,in-context,paper,newton",
    shots: Annotated[str, typer.Option(help="Numbers of comparisons to adapt to.")] = "0,2,5,10,20,40,60",
    encoder: Encoder = "minilm",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything here, as JSON.")] = None,
    report_file: Annotated[Path | None, typer.Option("--report", help="Also write one HTML page here.")] = None,
    data_format: Format = "auto",
) -> None:
    """Compares methods on the same users, none of whom the fit that is judged on them has seen."""
    from mrm_sdk.cli.commands.compare import run

    run(
        dataset,
        unseen=unseen,
        folds=folds,
        seeds=_numbers(seeds, "--seeds"),
        methods=methods,
        shots=_numbers(shots, "--shots"),
        encoder=encoder,
        json_file=json_file,
        report_file=report_file,
        data_format=data_format,
    )


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"{option} wants whole numbers with commas, as 0,2,10; not {text!r}.") from None


def _duration(text: str, option: str) -> timedelta:
    from mrm_sdk.settings import duration

    try:
        return duration(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}.") from None


@app.command("import")
def import_(
    dataset: Dataset,
    database: Database,
    tenant: Annotated[str, typer.Option(help="Whose rows they become.")] = "default",
    bundle: Annotated[
        Path | None, typer.Option(help="Compute features now, under this bundle, instead of on first use.")
    ] = None,
    data_format: Format = "auto",
    as_json: AsJson = False,
) -> None:
    """Records a data set's comparisons in a database; doing it twice adds nothing."""
    from mrm_sdk.cli.commands.import_feedback import run

    recorded = run(dataset, database, tenant, bundle, data_format)
    if as_json:
        echo(recorded.model_dump_json(indent=2))
    else:
        echo(
            f"accepted    {recorded.accepted}\nduplicates  {recorded.duplicates}\nrefused     {len(recorded.rejected)}"
        )
        for index, reason in recorded.rejected[:10]:
            echo(f"  comparison {index}: {reason}")
    if recorded.rejected:
        raise typer.Exit(1)


@app.command()
def rebuild(
    database: Database,
    bundle: Annotated[Path, typer.Option(help="The bundle to go over to.", show_default=False)],
    tenant: Annotated[str, typer.Option(help="Whose feedback.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Gives stored feedback the features of another bundle and adapts all users; goes on where it was stopped."""
    from mrm_sdk.cli.commands.rebuild import run

    rebuilt = run(database, bundle, tenant)
    if as_json:
        echo(rebuilt.model_dump_json(indent=2))
    else:
        echo(f"encoded   {rebuilt.items}\ncompared  {rebuilt.comparisons}\nadapted   {rebuilt.users}")


@encoders.command()
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
    as_json: AsJson = False,
) -> None:
    """Makes a model an encoder that bundles can carry: one graph, verified against the model."""
    from mrm_sdk.cli.commands.export_encoder import run

    run(
        model,
        out,
        max_tokens=max_tokens,
        precision=precision,
        pooling=pooling,
        normalize=normalize,
        licence=licence,
        as_json=as_json,
    )


@db.command()
def upgrade(database: Database) -> None:
    """Brings the tables up to date."""
    from mrm_sdk.settings import Settings
    from mrm_sdk.storage import Database as Opened
    from mrm_sdk.storage import upgrade as run

    before, after = run(Opened(database, Settings()))
    echo(f"{before or 'no tables'} -> {after}" if before != after else f"up to date at {after}")


@db.command()
def current(database: Database) -> None:
    """Prints the revision of the tables."""
    from mrm_sdk.settings import Settings
    from mrm_sdk.storage import Database as Opened
    from mrm_sdk.storage import current as run

    echo(run(Opened(database, Settings())) or "no tables")


@db.command()
def check(database: Database) -> None:
    """Compares the tables with what this version expects; exit code 1 where they differ."""
    from mrm_sdk.settings import Settings
    from mrm_sdk.storage import Database as Opened
    from mrm_sdk.storage import check as run

    differences = run(Opened(database, Settings()))
    echo("\n".join(differences) if differences else "the tables are as they should be")
    if differences:
        raise typer.Exit(1)


@app.command()
def doctor(
    database: Annotated[
        str | None, typer.Option(envvar="MRM_DATABASE", help="Also check this database.", show_default=False)
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Also check and time this bundle.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Checks the installation, and tells what to do about what is wrong; exit code 1 where something is."""
    from mrm_sdk.cli.commands.doctor import examine

    findings = examine(database, bundle)
    if as_json:
        echo_json([finding.as_json() for finding in findings])
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            echo(f"{'ok ' if finding.ok else 'BAD'}  {finding.name:{width}}  {finding.detail}")
            if finding.fix:
                echo(f"     {'':{width}}  -> {finding.fix}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)
