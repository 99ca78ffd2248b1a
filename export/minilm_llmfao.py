"""Recipe: a bundle for answers of language models from few people's comparisons, encoded with all-MiniLM-L6-v2.

There are too few people to set some aside for judging: each is judged by a fit to those of the other folds, and the
bundle is then trained on all of them. Needs the extras ``[cpu,train,minilm]`` and a folder with a ``train`` set, as
LLMFAO's (docs/how.md)::

    python export/minilm_llmfao.py path/to/llmfao models/llmfao
"""

import sys
from pathlib import Path

from mrm_sdk.data import read_dataset
from mrm_sdk.evaluation import METHODS, compare, comparison_table
from mrm_sdk.training import TrainingConfig, train_bundle

LICENCE = "LLMFAO: CC BY 4.0, D. Ustalov; all-MiniLM-L6-v2: MIT"


def main(data: Path, out: Path) -> None:
    dataset = read_dataset(data / "train")
    print(
        comparison_table(compare(dataset, {"newton": METHODS["newton"]}, folds=5, seeds=[0], shots=[0, 2, 10, 20])),
        flush=True,
    )
    config = TrainingConfig.preset("newton")
    manifest = train_bundle(dataset, out, name="minilm-llmfao", licence=LICENCE, config=config)
    print(f"written  {out}, K = {manifest.base_functions}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
