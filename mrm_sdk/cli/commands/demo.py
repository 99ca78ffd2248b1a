"""``mrm demo``: the main job in small, from texts and people to a ranking that follows one person."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrm_sdk.cli.options import SeedOption
from mrm_sdk.cli.progress import progress
from mrm_sdk.errors import OutputError

if TYPE_CHECKING:
    from rich.console import Console

    from mrm_sdk.client import Client
    from mrm_sdk.data.datasets import Dataset
    from mrm_sdk.evaluation.protocol import Report
    from mrm_sdk.simulation.corpus import Question
    from mrm_sdk.simulation.users import SyntheticUsers

TRAINED_USERS, NEW_USERS = 1000, 300
TRAINED_PROMPTS = 96
SHOTS = (0, 2, 5, 10)
_WIDTH = 80
_DATABASE, _USERS, _NEW_USERS = "demo.db", "users", "new-users"


def demo(
    out: Annotated[Path, typer.Option(help="Where all that it makes goes.")] = Path("mrm-demo"),
    seed: SeedOption = 0,
) -> None:
    """Trains a bundle on synthetic people, then plays a host application that personalizes. Takes under a minute."""
    from rich.console import Console

    from mrm_sdk.client import Client
    from mrm_sdk.data.writing import write_dataset
    from mrm_sdk.encoders import open_encoder
    from mrm_sdk.evaluation.protocol import evaluate
    from mrm_sdk.evaluation.reports.evaluation import save_evaluation
    from mrm_sdk.simulation.corpus import load_corpus
    from mrm_sdk.simulation.users import draw_users, simulate_judgements

    began = time.perf_counter()
    _prepare(out)
    console = Console(soft_wrap=not sys.stdout.isatty())  # lines stay whole for programs, words for people
    questions = load_corpus()
    new_prompts = range(TRAINED_PROMPTS, len(questions))  # neither these prompts nor their answers are trained on
    feedback, held_out = new_prompts[::2], new_prompts[1::2]
    _train(console, questions, out, seed)

    newcomers = draw_users(NEW_USERS, seed=seed + 1, prefix="new")
    judged = simulate_judgements(
        newcomers, questions, support=feedback, query=held_out, support_pairs=max(SHOTS), query_pairs=40,
        seed=seed + 1, noisy_query=False,
    )  # fmt: skip
    write_dataset(judged, out / _NEW_USERS)
    with Client(f"sqlite:///{(out / _DATABASE).as_posix()}", bundle=out / "bundle") as client:
        _show_one_user(console, client, newcomers, judged, questions[held_out[0]])
        with progress() as report:
            bundle = client.bundle
            result = evaluate(bundle, judged, open_encoder(None, bundle), shots=SHOTS, progress=report)
    _show_all_users(console, result)
    console.print()
    svg, page = save_evaluation(result, out, f"{NEW_USERS} new users on prompts that were not trained on")
    made = {"Picture": svg, "Page": page, "Bundle": out / "bundle", "Database": out / _DATABASE}
    made |= {"Data sets": out / _USERS, "": out / _NEW_USERS}
    for label, path in made.items():
        console.print(f"{label:11}{path}", highlight=False)
    console.print(f"\nNext, in your program: Client('sqlite:///mrm.db', bundle='{(out / 'bundle').as_posix()}')")
    console.print(f"\nThe whole demo took {time.perf_counter() - began:.0f} s.")


def _train(console: Console, questions: Sequence[Question], out: Path, seed: int) -> None:
    from mrm_sdk.data.writing import write_dataset
    from mrm_sdk.simulation.users import draw_users, simulate_judgements
    from mrm_sdk.training.config import TrainingConfig
    from mrm_sdk.training.pipeline import train_bundle

    config = TrainingConfig.preset("newton", seed=seed).with_settings(iterations=8)  # checks the seed
    with progress() as report:
        trained_on = range(TRAINED_PROMPTS)
        people = draw_users(TRAINED_USERS, seed=seed, prefix="trained")
        data = simulate_judgements(
            people, questions, support=trained_on, query=trained_on, support_pairs=30, query_pairs=30, seed=seed
        )
        write_dataset(data, out / _USERS)
        texts = TRAINED_PROMPTS * 4
        console.print(f"[bold]1.[/] Meta-training on {TRAINED_USERS:,} synthetic people and {texts} answers …")
        manifest = train_bundle(data, out / "bundle", config=config, licence="MIT", progress=report)
    difference = manifest.metrics["onnx_torch_largest_difference"]
    seconds = manifest.training["seconds"]
    console.print(f"   {seconds:.1f} s; exported to ONNX, which differs from torch by at most {difference:.0e}.\n")


def _prepare(out: Path) -> None:
    folders = {"bundle", _USERS, _NEW_USERS}
    files = {_DATABASE, f"{_DATABASE}-wal", f"{_DATABASE}-shm", "accuracy.svg", "accuracy.html"}
    try:
        out.mkdir(parents=True, exist_ok=True)
        foreign = sorted({entry.name for entry in out.iterdir()} - folders - files)
        if foreign:
            raise OutputError(f"{out} holds {foreign[0]!r}, which is not the demo's; choose another --out.")
        for name in files:
            (out / name).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot write to {out}: {error.strerror}. Choose another --out.") from None


def _show_one_user(
    console: Console, client: Client, people: SyntheticUsers, judged: Dataset, question: Question
) -> None:
    """A host application meets a new user, records what they choose, and ranks the same answers again."""
    import numpy as np
    from rich.table import Table

    from mrm_sdk.data.contents import SUPPORT
    from mrm_sdk.simulation.corpus import describe

    # Of the users whose taste the average does not fit, the one with the strongest taste.
    person = int(np.argmax(np.linalg.norm(people.tastes, axis=1) * people.unusual))
    user, taste = people.user_ids[person], people.tastes[person]
    rows = np.flatnonzero((judged.user == person) & (judged.phase == SUPPORT))
    comparisons = list(judged.comparisons(rows))
    ranks: list[list[int]] = []
    for before, shots in pairwise((0, *SHOTS)):
        client.record_many(comparisons[before:shots])
        ranked = client.rank(user, question.answers, prompt=question.prompt)
        ranks.append([1 + [r.index for r in ranked].index(i) for i in range(len(question.answers))])

    console.print(f"[bold]2.[/] A new user, {user}, of unusual taste: {describe(taste)}.")
    console.print(f"   Asked:\n   “{_start(question.prompt, _WIDTH - 5)}”")
    console.print("   Rank of the same answers after 0, 2, 5 and 10 comparisons on other prompts:\n")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("   ", "style of the answer", "their true taste", *map(str, SHOTS)):
        table.add_column(column, justify="right" if column[0].isdigit() else "left", no_wrap=True)
    true_order = np.argsort(-(question.styles @ taste), kind="stable")
    for true_rank, index in enumerate(true_order, 1):
        table.add_row("", describe(question.styles[index]), f"{true_rank}.", *(f"{rank[index]}." for rank in ranks))
    console.print(table)
    for label, rank in (("Best at first", ranks[0]), (f"Best after {SHOTS[-1]}", ranks[-1])):
        line = f"   {label}: "
        console.print(f"\n{line}{_start(question.answers[int(np.argmin(rank))], _WIDTH - len(line))}")
    console.print()


def _start(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: line.rindex(" ", 0, width - 1)] + " …"


def _show_all_users(console: Console, result: Report) -> None:
    from rich.table import Table

    console.print(f"[bold]3.[/] {NEW_USERS} people and 16 prompts that were never trained on. How often does the")
    console.print("   answer that a person truly prefers score higher than the other?\n")
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for column in ("comparisons given", "own weights", "worst tenth of users", "another user's weights"):
        table.add_column(column, justify="right")
    for point in result.points:
        table.add_row(str(point.shots), f"{point.accuracy:.1%}", f"{point.worst_tenth:.1%}", f"{point.control:.1%}")
    console.print(table)
