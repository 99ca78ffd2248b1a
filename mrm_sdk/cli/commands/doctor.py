"""``mrm doctor``: what is installed, what really works, and the command that fixes what does not; changes nothing."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from pydantic import SecretStr

from mrm_sdk.cli.options import JsonOption
from mrm_sdk.cli.output import require_file, show
from mrm_sdk.errors import ConfigurationError, MrmError
from mrm_sdk.runtime.accelerators import Survey, survey
from mrm_sdk.runtime.cpus import available_cpus
from mrm_sdk.runtime.providers import CPU, CUDA, wanted_providers
from mrm_sdk.schemas.items import Item
from mrm_sdk.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrm_sdk.bundle import Bundle
    from mrm_sdk.encoders import Encoder

_PACKAGES = ("mrm-sdk", "sqlalchemy", "alembic", "pydantic", "numpy", "safetensors", "tokenizers", "httpx")
_WIDTH = 80
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_CPU_ONLY = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'mrm-sdk[cpu]'"
_WITH_CUDA = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'mrm-sdk[gpu]'"
_SPELLING = "fix the spelling, or unset it; docs/commands.md lists all settings"
_ANOTHER_BUILD = "install a build of ONNX Runtime that has it, or unset MRM_PROVIDERS"
_SET_CPU = "set MRM_PROVIDERS=cpu"
_ANSWERS = tuple(Item("How do I boil an egg?", f"For {n} minutes.", None) for n in range(4, 8))


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        name: of the check.
        ok: whether it passed.
        detail: what was found.
        fix: what to do about it; for a check that passed, how to do better.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""

    @classmethod
    def of(cls, name: str, error: MrmError) -> Finding:
        """An error, split into what is wrong and the command that fixes it."""
        detail, _, fix = str(error).partition(" Run: ")
        return cls(name, False, detail, fix)

    def as_json(self) -> dict[str, Any]:
        """The finding for programs; ``fix`` only if there is one."""
        return {name: value for name, value in vars(self).items() if name != "fix" or value}


def doctor(
    database: Annotated[
        str | None, typer.Option(envvar="MRM_DATABASE", help="Also check this database.", show_default=False)
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Also check and time this bundle.", show_default=False)] = None,
    json_file: JsonOption = None,
) -> None:
    """Checks the installation and says how to fix what is wrong; exit code 1 if something is."""
    require_file(json_file)
    findings = examine(database, bundle)
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        indent = f"     {'':{width}}  "
        start = f"{'ok ' if finding.ok else 'BAD'}  {finding.name:{width}}  "
        # A word, as a path, stays whole however long it is, and so does a command: they are copied.
        lines += wrap(
            finding.detail, _WIDTH, initial_indent=start, subsequent_indent=indent, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip
        if finding.fix:
            lines.append(f"{indent}-> {finding.fix}")
    show("\n".join(lines), [finding.as_json() for finding in findings], json_file)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def examine(database: str | None, bundle: Path | None) -> list[Finding]:
    """Checks the installation and, if given, a database and a bundle; changes nothing."""
    import torch

    findings = [Finding("python", True, f"{platform.python_version()}, {platform.system()} {platform.machine()}")]
    findings += [Finding(name, _version(name) is not None, _version(name) or "not installed") for name in _PACKAGES]
    settings, finding = _settings()
    machine = survey(settings)
    findings += [Finding("torch", True, f"{torch.__version__}, {machine.torch}"), _runtime(machine)]
    findings += [*_nvidia(machine, settings), *_providers(machine, settings), _cpus(settings), finding]
    if database is not None:
        findings.append(_database(database, settings))
    if bundle is not None:
        if wanted_providers(settings, machine.listed)[0] not in machine.started:
            # Already reported: opening it here would only print its complaints on the terminal, or crash.
            settings = settings.model_copy(update={"providers": "cpu"})
        findings += _bundle(bundle, settings, runs=CPU in machine.started)
    return findings


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _settings() -> tuple[Settings, Finding]:
    """The settings of the environment, or the defaults if those are invalid."""
    try:
        settings = Settings()
    except ConfigurationError as error:
        return Settings.model_construct(), Finding("settings", False, str(error), "unset it, or give a valid value")
    known = {"DATABASE", *(name.upper() for name in Settings.model_fields)}
    unknown = sorted(name for name in os.environ if name.startswith("MRM_") and name[4:].upper() not in known)
    assignments = [
        f"MRM_{name.upper()}={_masked(name, getattr(settings, name))}" for name in sorted(settings.model_fields_set)
    ]
    detail = ", ".join(assignments) or "defaults"
    if unknown:
        return settings, Finding("settings", False, f"{detail}; no such setting: {', '.join(unknown)}", _SPELLING)
    return settings, Finding("settings", True, detail)


def _masked(name: str, value: object) -> str:
    """A setting without its secrets: keys, and what a URL carries before its host or in its query."""
    if name != "encoder_url" or value is None:
        return str(value)  # a SecretStr gives asterisks
    text = str(value.get_secret_value() if isinstance(value, SecretStr) else value)
    try:
        urlsplit(text)
    except ValueError:
        return "***"
    scheme, mark, rest = text.partition("://") if "://" in text else ("", "", text)
    # The scheme may be missing, or a password unquoted: everything before the last @ may be secret.
    secret, at, shown = rest.rpartition("@")
    if "?" in secret or "#" in secret:  # or the @ is within the query
        return f"{scheme}{mark}***"
    address, query, _ = shown.replace("#", "?").partition("?")
    return f"{scheme}{mark}{'***@' if at else ''}{address}{'?***' if query else ''}"


def _runtime(machine: Survey) -> Finding:
    present = [f"{name} {version}" for name in _RUNTIMES if (version := _version(name))]
    if len(present) > 1:
        return Finding(
            "onnx runtime", False, f"{' and '.join(present)} overwrite each other's files", _reinstall_command(machine)
        )
    if machine.error:
        return Finding("onnx runtime", False, machine.error.partition(" Run: ")[0], _reinstall_command(machine))
    built = f", built for CUDA {machine.cuda}" if machine.cuda else ""
    return Finding("onnx runtime", True, f"{' '.join(present) or 'of another distribution'}{built}")


def _reinstall_command(machine: Survey) -> str:
    """The command that installs the one ONNX Runtime that suits this machine."""
    return _WITH_CUDA if machine.nvidia.card or machine.nvidia.gpus else _CPU_ONLY


def _providers(machine: Survey, settings: Settings) -> Iterator[Finding]:
    if machine.error:
        return
    wanted = wanted_providers(settings, machine.listed)[0]
    listed = ", ".join(machine.listed)
    if wanted not in machine.listed:
        fix = f"{_WITH_CUDA}  # or unset MRM_PROVIDERS" if wanted == CUDA else _ANOTHER_BUILD
        yield Finding("providers listed", False, f"{listed}; MRM_PROVIDERS asks for {wanted}", fix)
    else:
        yield Finding("providers listed", True, listed)
    working = ", ".join(name for name in machine.listed if name in machine.started) or "none"
    failed = "".join(f"; {trial.provider} did not: {trial.why}" for trial in machine.trials if not trial.started)
    lacking = wanted in machine.listed and wanted not in machine.started
    fix = _cuda_fix(machine, settings) if lacking and wanted == CUDA else f"fix {wanted}, or set MRM_PROVIDERS=cpu"
    ok = not lacking and CPU in machine.started
    yield Finding(
        "providers started", ok, working + failed, fix if lacking else "" if ok else _reinstall_command(machine)
    )


def _nvidia(machine: Survey, settings: Settings) -> Iterator[Finding]:
    nvidia = machine.nvidia
    if not nvidia.gpus:
        where = "; running on the CPU" if CUDA not in machine.started else ""
        what = f"a GPU that cannot be used: {nvidia.why}" if nvidia.card or nvidia.driver else "no NVIDIA GPU"
        yield Finding("nvidia", True, what + where, _cuda_fix(machine, settings) if nvidia.card else "")
        return
    names = ", ".join(nvidia.gpus)
    idle = CUDA not in machine.listed and not machine.error
    yield Finding("nvidia", True, f"{names}; driver for CUDA up to {nvidia.driver}", _WITH_CUDA if idle else "")
    if machine.cuda:
        parts = [*nvidia.libraries, *(f"{name} is missing" for name in nvidia.missing)]
        # Some libraries are loaded only by graphs that need them: if CUDA started, it works.
        ok = not nvidia.missing or CUDA in machine.started
        yield Finding("cuda libraries", ok, ", ".join(parts), _libraries_command(machine) if nvidia.missing else "")


def _cuda_fix(machine: Survey, settings: Settings) -> str:
    """What to do so that CUDA starts."""
    nvidia = machine.nvidia
    if not nvidia.gpus:
        if nvidia.driver:
            return f"see that nvidia-smi works and that CUDA_VISIBLE_DEVICES hides no GPU, or {_SET_CPU}"
        if nvidia.card:
            return f"install NVIDIA's driver (into a container it comes with: docker run --gpus all), or {_SET_CPU}"
        return f"{_CPU_ONLY}  # or {_SET_CPU}"
    if _number(nvidia.driver) < _number(machine.cuda):
        older = " or: pip install 'onnxruntime-gpu<1.27'," if _number(machine.cuda) == 13 else ""
        return f"update NVIDIA's driver to one for CUDA {machine.cuda.partition('.')[0]},{older} or {_SET_CPU}"
    if nvidia.missing:
        return _libraries_command(machine)
    if settings.device_id >= len(nvidia.gpus):
        return f"set MRM_DEVICE_ID to less than {len(nvidia.gpus)}"
    return f"set MRM_PROVIDERS=cpu until {CUDA} works"


def _number(version: str) -> int:
    return int("".join(filter(str.isdigit, version.partition(".")[0])) or 0)


def _libraries_command(machine: Survey) -> str:
    """The command that installs the missing NVIDIA libraries, in versions that fit."""
    if machine.nvidia.missing == ("libcudnn.so.9",):
        return f"pip install 'nvidia-cudnn-cu{_number(machine.cuda)}~=9.0'"
    version = _version("onnxruntime-gpu")
    return f"pip install 'onnxruntime-gpu[cuda,cudnn]{f'=={version}' if version else ''}'"


def _cpus(settings: Settings) -> Finding:
    usable = available_cpus()
    detail = f"{usable} for this process, of the machine's {os.cpu_count()}"
    if settings.threads > usable:
        return Finding("cpus", True, f"{detail}; MRM_THREADS={settings.threads}", "unset MRM_THREADS: more is slower")
    return Finding("cpus", True, detail)


def _database(url: str, settings: Settings) -> Finding:
    from mrm_sdk.storage import Database, current
    from mrm_sdk.storage.migrate import require_current

    try:
        opened = Database(url, settings, read_only=True)
        try:
            if opened.is_in_memory:
                return Finding("database", True, f"{opened.url}, in memory: gone with each process")
            if opened.is_new:
                fix = f"mrm db upgrade --database '{opened.url}'"
                return Finding("database", False, f"{opened.url} does not exist; check the path", fix)
            require_current(opened)
            return Finding("database", True, f"{opened.url}, tables at revision {current(opened)}")
        finally:
            opened.close()
    except MrmError as error:
        return Finding.of("database", error)


def _bundle(path: Path, settings: Settings, *, runs: bool) -> Iterator[Finding]:
    import numpy as np

    from mrm_sdk.bundle import Bundle
    from mrm_sdk.encoders import embed, open_encoder

    stage = "bundle"
    try:
        bundle = Bundle(path, settings)
        spec = bundle.manifest.encoder
        shape = f"K = {bundle.manifest.base_functions}, D = {spec.dimension}, {spec.name} ({spec.kind})"
        yield Finding(stage, True, f"{bundle.manifest.name}, intact; {shape}")
        if not runs:
            return
        stage = "encoder"
        encoder, items = open_encoder(None, bundle), _ANSWERS
        if spec.kind == "precomputed":
            drawn = np.random.default_rng(0).standard_normal((len(items), encoder.dimension)).astype(np.float32)
            items = tuple(Item(None, None, embedding) for embedding in drawn)
        else:
            embed(encoder, items[:1])  # opening the session is not what is timed
            began = time.perf_counter()
            embed(encoder, items)
            yield Finding(stage, True, f"{len(items)} short answers in {_since(began)}")
        stage = "score"
        _score(bundle, encoder, items)
        began = time.perf_counter()
        scores = _score(bundle, encoder, items)
        what = f"{len(items)} answers, for a user who adapts to {len(items) - 1} comparisons of them"
        where = ", ".join(bundle.providers)
        yield Finding(stage, bool(np.isfinite(scores).all()), f"{what}, in {_since(began)} on {where}")
    except MrmError as error:
        yield Finding.of(stage, error)


def _score(bundle: Bundle, encoder: Encoder, items: Sequence[Item]) -> NDArray[np.float64]:
    """What a host pays for: encodes n items, adapts a user who prefers each to the next, and scores them, [n]."""
    import torch

    from mrm_sdk.core.batching import Pairs, pad
    from mrm_sdk.encoders import base_rewards

    rewards = torch.from_numpy(base_rewards(encoder, bundle, items)).double()
    z = rewards[:-1] - rewards[1:]
    weights, _ = bundle.adapt(pad([Pairs(z, torch.ones(len(z)).double(), torch.zeros(len(z)).double())]))
    scores: NDArray[np.float64] = (rewards @ weights[0]).numpy()
    return scores


def _since(began: float) -> str:
    return f"{1000 * (time.perf_counter() - began):.1f} ms"
