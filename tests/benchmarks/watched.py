"""A process whose stages and memory are watched: from outside by :func:`watch`, from inside by running this module.

``python -m tests.benchmarks.watched LOG train …`` is the command ``mrm train …`` that also notes in LOG when each stage
began, and at the end the peak of its resident memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

_SECONDS_BETWEEN_SAMPLES = 0.05
MRM = ("-m", "tests.benchmarks.watched")


class Watched(NamedTuple):
    """What a process cost.

    Args:
        seconds: from its start to its end.
        peak: most resident memory, in bytes, with pages of files that are mapped.
        anonymous: most of what is in no file, in bytes: what the process itself keeps.
        stages: seconds by stage, in the order in which they began; what came before the first is "starting".
        anonymous_by_stage: most of it in each stage, in bytes.
        out: its standard output.
    """

    seconds: float
    peak: int
    anonymous: int
    stages: dict[str, float]
    anonymous_by_stage: dict[str, int]
    out: str


def resident(pid: int | str, field: str) -> int:
    """A field of ``/proc/PID/status``, in bytes; 0 where the process has none any more."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(field + ":")), 0)


def watch(arguments: Sequence[object], log: Path) -> Watched:
    """Runs Python with ``arguments`` to its end.

    Args:
        arguments: of the interpreter; the program keeps a :func:`noted` log.
        log: where that is.

    Raises:
        RuntimeError: it failed; the message holds what it said on stderr.
    """
    began, samples = time.time(), []
    with (
        (log.parent / "out").open("w+") as out,
        (log.parent / "err").open("w+") as err,
        subprocess.Popen([sys.executable, *map(str, arguments)], stdout=out, stderr=err) as child,
    ):
        while child.poll() is None:
            samples.append((time.time(), resident(child.pid, "RssAnon")))
            time.sleep(_SECONDS_BETWEEN_SAMPLES)
        ended = time.time()
        err.seek(0)
        out.seek(0)
        if child.returncode:
            raise RuntimeError(err.read())
        printed = out.read()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    marks = [("starting", began), *((line["stage"], line["at"]) for line in lines if "stage" in line), ("", ended)]
    stages: dict[str, float] = {}
    anonymous: dict[str, int] = {}
    for (stage, start), (_, stop) in pairwise(marks):
        stages[stage] = stages.get(stage, 0.0) + stop - start
        within = [size for at, size in samples if start <= at <= stop]
        anonymous[stage] = max([anonymous.get(stage, 0), *within])
    peak = next(line["peak"] for line in lines if "peak" in line)
    return Watched(ended - began, peak, max(size for _, size in samples), stages, anonymous, printed)


@contextmanager
def noted(log: Path) -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function for a ``progress`` argument that notes in ``log`` when each stage began."""
    stage = ""
    with log.open("w") as file:

        def report(name: str, done: int, total: int) -> None:
            nonlocal stage
            if name != stage:
                stage = name
                print(json.dumps({"stage": name, "at": time.time()}), file=file, flush=True)

        yield report
        # Not getrusage: what it says of a process begins with the memory of the one that started it.
        print(json.dumps({"peak": resident("self", "VmHWM")}), file=file)


def _main(log: Path, arguments: list[str]) -> None:
    import mrm_sdk.cli.progress
    from mrm_sdk.cli.main import main

    mrm_sdk.cli.progress.progress = lambda: noted(log)  # type: ignore[assignment,return-value]
    sys.argv = ["mrm", *arguments]
    main()


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
