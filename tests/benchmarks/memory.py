"""What training and judging take of memory where the data do not fit: 100,000 users, 1,000,000 items, D = 1024.

Runs the commands ``mrm train`` and ``mrm evaluate`` on 2 GB of embeddings; takes minutes, and 4 GB of disk.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.generated import write_pairs
from tests.benchmarks.table import publish
from tests.benchmarks.watched import MRM, Watched, watch

USERS, ITEMS, DIMENSION = 100_000, 1_000_000, 1024
_ROOM = 4e9
_GIB = 2**30


def rows_of(command: str, watched: Watched) -> list[dict[str, Any]]:
    """The command as a whole, then each of its stages; one step before a stage's first report is the stage before."""
    whole = {
        "what": command,
        "seconds": watched.seconds,
        "peak_gib": watched.peak / _GIB,
        "anonymous_gib": watched.anonymous / _GIB,
    }
    stages = [
        {"what": f"  {stage}", "seconds": seconds, "anonymous_gib": watched.anonymous_by_stage[stage] / _GIB}
        for stage, seconds in watched.stages.items()
    ]
    return [whole, *stages]


def main() -> None:
    """Measures, prints and saves."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if shutil.disk_usage(folder).free < _ROOM:
            sys.exit(f"This needs {_ROOM / 1e9:.0f} GB where temporary files go; set TMPDIR to a disk with room.")
        data = write_pairs(folder / "data", users=USERS, items=ITEMS, dimension=DIMENSION)
        log, bundle = folder / "log", folder / "bundle"
        rows = rows_of("mrm train", watch([*MRM, log, "train", data, "--out", bundle], log))
        rows += rows_of("mrm evaluate", watch([*MRM, log, "evaluate", bundle, data, "--shots", "0,10"], log))
    columns = {
        "seconds": ("seconds", ".1f"),
        "peak_gib": ("peak GiB", ".2f"),
        "anonymous_gib": ("anonymous GiB", ".2f"),
    }
    publish("memory", rows, columns)
