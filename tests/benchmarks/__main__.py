"""Runs benchmarks: ``python -m tests.benchmarks [NAME …]``, or ``make bench``; asserts nothing, as machines differ.

Without a name, all of them but ``memory`` and ``store_size``, which take minutes, and 4 GB and 12 GB of disk where
temporary files go (``TMPDIR``), and ``gpu_check``, which has options of its own:
``python -m tests.benchmarks gpu_check --help``.
"""

from __future__ import annotations

import sys
from importlib import import_module

ALWAYS = ("hot_paths", "store", "fresh", "encoding", "reading", "training")
WHEN_ASKED = ("memory", "store_size")


def main(names: list[str]) -> None:
    if names[:1] == ["gpu_check"]:
        import_module("tests.benchmarks.gpu_check").main(names[1:])
        return
    unknown = set(names) - {*ALWAYS, *WHEN_ASKED}
    if unknown:
        sys.exit(f"There is no benchmark {', '.join(sorted(unknown))}; choose from {', '.join(ALWAYS + WHEN_ASKED)}.")
    for name in names or ALWAYS:
        import_module(f"tests.benchmarks.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
