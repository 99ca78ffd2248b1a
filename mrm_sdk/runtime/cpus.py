"""How many CPUs this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = _CGROUP) -> int:
    """CPUs of this process's affinity, or of its container's quota where that is less; at least 1.

    ONNX Runtime would count the machine's cores: inside a container limited to 2 of 64, it would start 64 threads.

    Args:
        cgroup: where the control group's files are mounted (version 2, or version 1 with its ``cpu`` folder).
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, math.ceil(_quota(cgroup) or affinity)))


def _quota(cgroup: Path) -> float | None:
    """CPUs that the container may use, as a number of cores; ``None`` without a limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text(encoding="ascii")
        cores = float(quota) / float(period)  # "max" is no number, and -1 stands for it in version 1
        return cores if 0 < cores < math.inf else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
