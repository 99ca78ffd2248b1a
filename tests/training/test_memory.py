"""Training never holds all embeddings: what it takes of memory does not grow with items times D."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.benchmarks.generated import write_pairs
from tests.benchmarks.watched import watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

DIMENSION = 1024
FEW, MANY = 10_000, 60_000
# In single precision, the embeddings that MANY has and FEW has not; half of it as pages of the file.
ALL_MB = (MANY - FEW) * DIMENSION * 4 / 1e6
MOST_MB = 50
FIT = """
import sys
from pathlib import Path
import numpy as np
from mrm_sdk.training.config import EmpiricalBayesConfig, MamlConfig, TrainingConfig
from mrm_sdk.data.datasets import read_dataset
from mrm_sdk.training.fitting import fit
from tests.benchmarks.watched import noted, resident

data, log, method = sys.argv[1:]
config = {
    "newton": TrainingConfig(outer=EmpiricalBayesConfig(directions=16, iterations=2), base_functions=4),
    "paper": TrainingConfig(method="gradient", outer=MamlConfig(steps=20, users_per_batch=8), base_functions=2),
}[method]
dataset = read_dataset(data)
users = np.arange(len(dataset.user_ids))
before = resident("self", "VmRSS")
with noted(Path(log)) as report:
    fit(dataset, users, dataset.embeddings, config, report)
print(before)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Data sets with few and with many items; users are in proportion."""
    folder = tmp_path_factory.mktemp("mapped")
    return {
        items: write_pairs(folder / str(items), users=items // 20, items=items, dimension=DIMENSION, pairs=5)
        for items in (FEW, MANY)
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", ["newton", "paper"])
def test_memory_does_not_grow_with_items_times_dimension(folders: dict[int, Path], method: str, tmp_path: Path) -> None:
    grown = {}
    for items, data in folders.items():
        watched = watch(["-c", FIT, data, tmp_path / "log", method], tmp_path / "log")
        grown[items] = (watched.peak - int(watched.out)) / 1e6
    assert grown[MANY] - grown[FEW] < MOST_MB < ALL_MB / 4, grown
