"""Recipe: a bundle for short texts from people's ratings of jokes, encoded with all-MiniLM-L6-v2.

Needs the extras ``[cpu,train,minilm]`` and a folder with ``train`` and ``unseen`` data sets (docs/how.md)::

    python export/minilm_jester.py path/to/jester models/jester
"""

import sys
from pathlib import Path

from mrm_sdk import Bundle
from mrm_sdk.data import read_dataset
from mrm_sdk.encoders import open_encoder
from mrm_sdk.evaluation import evaluate, evaluation_table, save_evaluation
from mrm_sdk.training import TrainingConfig, train_bundle

LICENCE = "Jester data: free for research with citation of Goldberg et al. 2001; all-MiniLM-L6-v2: MIT"


def main(data: Path, out: Path) -> None:
    train_bundle(
        read_dataset(data / "train"), out, name="minilm-jester", licence=LICENCE, config=TrainingConfig.preset("newton")
    )
    bundle = Bundle(out)
    # Reported on people who took no part in training or in choosing anything.
    report = evaluate(bundle, read_dataset(data / "unseen"), open_encoder(None, bundle))
    print(evaluation_table(report))
    for path in save_evaluation(report, out.parent / f"{out.name}-report", "People who were never trained on"):
        print(path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
