"""A process whose client answers its first call; :mod:`tests.benchmarks.fresh` starts it.

``python -m tests.benchmarks.first_call BUNDLE DATABASE [warm]`` reads prompt and answers as JSON and prints seconds by
step. Nothing is imported that a host's own process would not have imported before that step.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from pathlib import Path


def main(bundle: Path, database: Path, *, warm: bool) -> None:
    """Measures and prints; with ``warm``, the call comes after ``warm_up()``."""
    texts = json.load(sys.stdin)
    marks = [("", time.perf_counter())]
    from mrm_sdk import Client

    client = Client(f"sqlite:///{database}", bundle=bundle)
    marks.append(("client", time.perf_counter()))
    if warm:
        client.warm_up()
        marks.append(("warm_up", time.perf_counter()))
    client.score("ada", texts["answers"], prompt=texts["prompt"])
    marks.append(("score", time.perf_counter()))

    from tests.benchmarks.bare_encoder import BareEncoder

    bare = BareEncoder(bundle)
    tokens = bare.tokens(**texts)
    marks.append(("", time.perf_counter()))
    bare.open_and_run(tokens)
    marks.append(("bare_first", time.perf_counter()))
    bare.run(tokens)
    marks.append(("bare_again", time.perf_counter()))
    print(json.dumps({name: at - before for (_, before), (name, at) in pairwise(marks) if name}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), warm=sys.argv[3:] == ["warm"])
