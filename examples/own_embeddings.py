"""Bring embeddings of your own: train on them, adapt, and score, with no text anywhere.

Run it with the extras ``[cpu,train]``::

    python examples/own_embeddings.py
"""

import json
import tempfile
from pathlib import Path

import numpy as np

from mrm_sdk import Client, Comparison, Response
from mrm_sdk.data import read_dataset
from mrm_sdk.training import train_bundle

DIMENSION = 16


def write_dataset(path: Path, rng: np.random.Generator) -> None:
    """200 users, each with a taste of their own, compare random items."""
    items = rng.standard_normal((80, DIMENSION)).round(4)
    with path.open("w") as file:
        for user in range(200):
            taste = rng.standard_normal(DIMENSION)
            for _ in range(20):
                a, b = items[rng.choice(80, 2, replace=False)]
                chosen, rejected = (a, b) if (a - b) @ taste > 0 else (b, a)
                row = {
                    "user_id": f"u{user}",
                    "chosen": {"embedding": chosen.tolist()},
                    "rejected": {"embedding": rejected.tolist()},
                }
                file.write(json.dumps(row) + "\n")


def main() -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        data, bundle = Path(folder) / "comparisons.jsonl", Path(folder) / "bundle"
        write_dataset(data, rng)
        train_bundle(read_dataset(data), bundle)
        with Client("sqlite://", bundle=bundle) as client:
            taste = rng.standard_normal(DIMENSION)
            candidates = [Response(embedding=rng.standard_normal(DIMENSION)) for _ in range(200)]
            truth = [float(np.dot(c.embedding, taste)) for c in candidates]
            for shots in (0, 5, 20, 60):
                for n in range(client.personalize("ada").comparisons, shots):
                    a, b = (
                        Response(embedding=rng.standard_normal(DIMENSION)),
                        Response(embedding=rng.standard_normal(DIMENSION)),
                    )
                    if np.dot(a.embedding, taste) < np.dot(b.embedding, taste):
                        a, b = b, a
                    client.record(Comparison(user_id="ada", chosen=a, rejected=b, event_id=f"ada-{n}"))
                correlation = np.corrcoef(client.score("ada", candidates), truth)[0, 1]
                print(f"{shots:3} comparisons: correlation of scores with true taste {correlation:+.2f}")


if __name__ == "__main__":
    main()
