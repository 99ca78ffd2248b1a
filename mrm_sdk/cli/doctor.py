"""``mrm doctor``: what is installed, what really works, and the line that mends what does not."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from mrm_sdk.bundle import Bundle
from mrm_sdk.bundle.providers import onnxruntime
from mrm_sdk.client import open_encoder
from mrm_sdk.encoders import embed
from mrm_sdk.errors import MrmError
from mrm_sdk.schemas import Item
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, current
from mrm_sdk.storage.migrate import require_current

_PACKAGES = ("torch", "sqlalchemy", "alembic", "pydantic", "numpy", "tokenizers")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def examine(database: str | None, bundle: Path | None) -> list[Finding]:
    """Looks at the installation and, where named, at a database and a bundle; changes nothing."""
    findings = [Finding("python", True, platform.python_version())]
    findings += [Finding(name, _version(name) is not None, _version(name) or "not installed") for name in _PACKAGES]
    findings += _runtime()
    if database is not None:
        findings.append(_database(database))
    if bundle is not None:
        findings += _bundle(bundle)
    return findings


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _runtime() -> list[Finding]:
    installed = {name: _version(name) for name in ("onnxruntime", "onnxruntime-gpu")}
    present = [f"{name} {version}" for name, version in installed.items() if version]
    if len(present) > 1:
        return [
            Finding(
                "onnx runtime",
                False,
                f"{' and '.join(present)} overwrite each other's files. Run: pip uninstall -y onnxruntime "
                "onnxruntime-gpu, then: pip install 'mrm-sdk[gpu]' or 'mrm-sdk[cpu]'",
            )
        ]
    try:
        runtime = onnxruntime()
    except MrmError as error:
        return [Finding("onnx runtime", False, str(error))]
    return [
        Finding("onnx runtime", True, " ".join(present) or runtime.__version__),
        Finding("providers listed", True, ", ".join(runtime.get_available_providers())),
    ]


def _database(url: str) -> Finding:
    try:
        opened = Database(url, Settings())
        if opened.is_new:
            return Finding("database", False, f"{opened.url} does not exist; check the path, or run: mrm db upgrade")
        require_current(opened)
        return Finding("database", True, f"{opened.url}, tables at revision {current(opened)}")
    except MrmError as error:
        return Finding("database", False, str(error))


def _bundle(path: Path) -> list[Finding]:
    try:
        bundle = Bundle(path)
        spec = bundle.manifest.encoder
        shape = f"K = {bundle.manifest.base_functions}, D = {spec.dimension}, {spec.name}"
        findings = [Finding("bundle", True, f"{bundle.manifest.name}, intact; {shape}")]
        findings.append(Finding("providers started", True, ", ".join(bundle.providers)))
        encoder = open_encoder(None, bundle)
        if spec.kind == "onnx":
            items = [Item("How do I boil an egg?", f"For {n} minutes.", None) for n in range(4)]
            embed(encoder, items[:1])  # opening the session is not what is timed
            began = time.perf_counter()
            embeddings = embed(encoder, items)
            milliseconds = 1000 * (time.perf_counter() - began)
            bundle.base_rewards(embeddings)
            findings.append(Finding("encoder", True, f"4 short answers in {milliseconds:.1f} ms"))
        return findings
    except MrmError as error:
        return [Finding("bundle", False, str(error))]
