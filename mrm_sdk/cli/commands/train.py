"""``mrm train``: users' comparisons become a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from mrm_sdk.cli.output import require_file, show
from mrm_sdk.cli.progress import progress
from mrm_sdk.cli.reading import read_for_learning, say_refused

if TYPE_CHECKING:
    from mrm_sdk.bundle import Manifest

# A coin is right half the time: below this, the encoder hardly sees what users judge by.
_HARDLY_RIGHT = 0.55


def train(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option(help="The bundle's folder; an older bundle there is replaced.")],
    preset: Annotated[str, typer.Option(help="newton, or paper: the published method.")] = "newton",
    encoder: EncoderOption = "minilm",
    handcrafted: Annotated[
        bool | None,
        typer.Option(
            "--handcrafted/--no-handcrafted",
            help="Put features counted in the text beside the embedding; where they help if not given.",
            show_default=False,
        ),
    ] = None,
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
    json_file: JsonOption = None,
) -> None:
    """Meta-trains on a data set and writes a verified bundle."""
    from mrm_sdk.training.config import TrainingConfig

    require_file(json_file)
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
                on_refused=say_refused,
            )
    except KeyboardInterrupt:
        if checkpoint is None or not any(checkpoint.glob("*.safetensors")):
            raise
        raise KeyboardInterrupt(f"interrupted; the same command resumes from {checkpoint}") from None
    show(_summary(manifest, out, preset, seed), manifest.model_dump(mode="json"), json_file)


def _summary(manifest: Manifest, out: Path, preset: str, seed: int) -> str:
    training, metrics = manifest.training, manifest.metrics
    users, set_aside = training["users_trained"], training["users_chosen_on"]
    how = "by cross-validation" if set_aside == users else f"on {set_aside} set aside at first"
    lines = [
        f"bundle       {out}",
        f"fingerprint  {manifest.fingerprint}",
        *([f"left out     {left} comparisons"] if (left := training["data"].get("left_out")) else []),
        f"users        {users}" + (f"; settings chosen {how}" if "chosen" in metrics else ""),
        f"training     {training['seconds']:.1f} s ({preset}, K = {manifest.base_functions}, seed {seed})",
    ]
    held_out = metrics.get("held_out_accuracy")
    if held_out is None:
        return "\n".join([*lines, "", f"Judge it on other users: mrm evaluate {out} OTHERS"])
    *fewer, most = held_out["shots"]
    shots = f"{', '.join(map(str, fewer))} and up to {most} comparisons"
    lines += ["", "Accuracy on users whom the fit had not seen, before and after adapting", f"to {shots} (their mean):"]
    new = metrics.get("held_out_accuracy_new_texts")
    for texts, judged in (("texts that it knows", held_out), ("texts new to it", new)):
        if judged is not None:
            lines.append(f"  {texts:20} {judged['before']:.1%} -> {judged['after']:.1%}")
    if held_out["after"] <= held_out["before"]:
        scope = "Adapting did not help: this bundle gives all users the average user's reward."
        lines += ["", scope, *_advice(training["data"], held_out["before"])]
    elif new is not None and new["after"] <= new["before"]:
        scope = "Over new texts adapting did not help: there, all users get the average user's reward."
        lines += ["", scope, *_advice(training["data"], new["before"])]
    return "\n".join(lines)


def _advice(data: dict[str, Any], before: float) -> list[str]:
    """What would help where adapting helps no user."""
    from mrm_sdk.data.checking import ENOUGH_SHOTS, ENOUGH_USERS

    each = data["comparisons"] / data["users"]
    causes = {
        f"more users: there are {data['users']}": data["users"] < ENOUGH_USERS,
        f"more comparisons of each user: there are {each:.0f} on average": each < 2 * ENOUGH_SHOTS,
        "an encoder that sees what users judge by: try another --encoder": before < _HARDLY_RIGHT,
    }
    return [
        "What would help:",
        *(f"  - {cause}" for cause, holds in causes.items() if holds),
        "  - check that each user_id is one person; if all want the same, there is nothing to learn about each",
    ]
