"""A container's limit counts, not the machine's size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mrm_sdk.runtime.cpus import available_cpus


@pytest.fixture(autouse=True)
def _eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that the scheduler lets run on 8 CPUs."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("150000 100000\n", 2),
        ("50000 100000\n", 1),
        ("6400000 100000\n", 8),
        ("", 8),
        ("many 100000", 8),
        ("200000", 8),
        ("200000 0", 8),
        ("0 100000", 8),
        ("nan 100000", 8),
        ("é", 8),
    ],
)
def test_version_2(tmp_path: Path, text: str, cpus: int) -> None:
    (tmp_path / "cpu.max").write_text(text, encoding="utf-8")
    assert available_cpus(tmp_path) == cpus


@pytest.mark.parametrize(
    ("quota", "period", "cpus"),
    [("-1\n", "100000\n", 8), ("300000\n", "100000\n", 3), ("x", "100000", 8), ("100000", None, 8)],
)
def test_version_1(tmp_path: Path, quota: str, period: str | None, cpus: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    if period is not None:
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text(period)
    assert available_cpus(tmp_path) == cpus


def test_without_control_groups(tmp_path: Path) -> None:
    assert available_cpus(tmp_path) == 8
    assert available_cpus(tmp_path / "absent") == 8


def test_affinity_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("400000 100000")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert available_cpus(tmp_path) == 1


def test_where_there_is_no_affinity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cpus(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus(tmp_path) == 1
