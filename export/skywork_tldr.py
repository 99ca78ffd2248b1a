"""Recipe: workers who compared summaries (summarize_from_feedback), encoded with Skywork-Reward-V2-Llama-3.1-8B.

Needs the extras ``[gpu,train,minilm,hub]`` and a GPU with 24 GB; encoding is what takes time. The protocol is that of
the released experiments: workers of both splits, who adapt to the train split and are judged on the validation split;
half of them seen, with at most 150 pairs (100 in the paper's other setting), half unseen, with at most 50
(skywork_protocol.py)::

    python export/skywork_tldr.py models/tldr [--data path/to/summarize_from_feedback]
"""

import skywork_protocol

from mrm_sdk.data import read_dataset
from mrm_sdk.data.readers import tldr

LICENCE = "summarize_from_feedback: modified MIT; Skywork-Reward-V2-Llama-3.1-8B: Llama 3.1 licence"

if __name__ == "__main__":
    chosen = skywork_protocol.options(__doc__, "hub:openai/summarize_from_feedback:comparisons")
    skywork_protocol.run(
        chosen,
        read_dataset(chosen.data, format=tldr.reader(phases_by_split=True)),
        licence=LICENCE,
        seen_pairs=150,
        unseen_pairs=50,
        shots=(0, 2, 5, 10, 20, 50),
    )
