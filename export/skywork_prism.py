"""Recipe: people of PRISM (1,396 who chatted with 21 models), encoded with Skywork-Reward-V2-Llama-3.1-8B.

Needs the extras ``[gpu,train,minilm,hub]`` and a GPU with 24 GB; encoding is what takes time. The protocol is that of
the released experiments: half of the users seen, half unseen; per user half of the conversations to adapt, half to be
judged on (skywork_protocol.py)::

    python export/skywork_prism.py models/prism [--data path/to/prism]
"""

import skywork_protocol

from mrm_sdk.data import read_dataset

LICENCE = "PRISM: CC BY 4.0 (people's texts), CC BY-NC 4.0 (models'); Skywork-Reward-V2-Llama-3.1-8B: Llama 3.1 licence"

if __name__ == "__main__":
    chosen = skywork_protocol.options(__doc__, "hub:HannahRoseKirk/prism-alignment")
    skywork_protocol.run(chosen, read_dataset(chosen.data, format="prism"), licence=LICENCE)
