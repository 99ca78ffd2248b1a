"""What ``mrm doctor`` finds, what it says to do, and that it leaves everything as it was."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from mrm_sdk.bundle import Bundle
from mrm_sdk.cli.commands import doctor
from mrm_sdk.cli.commands.doctor import Finding, examine
from mrm_sdk.runtime.accelerators import Nvidia, Survey, Trial
from mrm_sdk.runtime.providers import CPU, CUDA
from mrm_sdk.settings import Settings
from mrm_sdk.storage import Database, upgrade
from tests.conftest import Run, mrm

ON_CPU = Survey((Trial(CPU, True, ""),), "", Nvidia(why="no driver of NVIDIA's is installed"), "built without CUDA", "")
H100 = Nvidia(card=True, gpus=("NVIDIA H100",), driver="13.2", libraries=("CUDA runtime 13.0", "cuDNN 9.14"))
ON_GPU = Survey((Trial(CUDA, True, ""), Trial(CPU, True, "")), "13.0", H100, "built for CUDA 13.0, sees 1 GPU", "")
GPU_FAILS = replace(ON_GPU, trials=(Trial(CUDA, False, "it broke"), Trial(CPU, True, "")))


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has set nothing, whatever who runs the tests has."""
    for name in ("DATABASE", *(name.upper() for name in Settings.model_fields)):
        monkeypatch.delenv(f"MRM_{name}", raising=False)
    for name in ("CI", "ORT_DISABLE_TELEMETRY"):  # without these, ONNX Runtime writes to the home folder
        monkeypatch.delenv(name, raising=False)


def as_json(run: Run) -> dict[str, dict[str, object]]:
    return {finding["name"]: finding for finding in json.loads(run.out)}


def look(
    monkeypatch: pytest.MonkeyPatch, machine: Survey, database: str | None = None, bundle: Path | None = None
) -> dict[str, Finding]:
    """Examines a machine with these accelerators."""
    monkeypatch.setattr(doctor, "survey", lambda _: machine)
    return {finding.name: finding for finding in examine(database, bundle)}


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All files below a folder, with contents and times; of SQLite's shared memory, where readers sign in, the name."""
    return {
        str(path.relative_to(folder)): (path.read_bytes() * (path.suffix != ".db-shm"), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_all_is_well(text_bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    url = f"sqlite:///{tmp_path / 'a.db'}"
    mrm("db", "upgrade", "--database", url)
    before, shipped = files(tmp_path), files(text_bundle.path)
    everywhere = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME"), str(tmp_path / "home"))
    command = ("doctor", "--bundle", text_bundle.path)
    run = mrm(*command, "--json", "-", "--database", url, cwd=tmp_path / "home", **everywhere, MRM_PROVIDERS="cpu")
    assert (run.code, run.err) == (0, ""), run.out + run.err
    findings = as_json(run)
    assert all(finding["ok"] for finding in findings.values())
    assert not any("fix" in finding for name, finding in findings.items() if name != "nvidia")
    assert CPU in str(findings["providers started"]["detail"])
    assert "4 short answers in" in str(findings["encoder"]["detail"])
    assert "adapts to 3 comparisons" in str(findings["score"]["detail"])
    assert findings["settings"]["detail"] == "MRM_PROVIDERS=cpu"
    assert "tables at revision" in str(findings["database"]["detail"])
    assert (files(tmp_path), files(text_bundle.path)) == (before, shipped)

    run = mrm(*command, cwd=tmp_path / "home", **everywhere, MRM_PROVIDERS="cpu", MRM_DATABASE=url)
    assert (run.code, run.err) == (0, "")
    begun = [line.split("  ")[0] for line in run.out.splitlines() if not line.startswith("     ")]
    assert begun == ["ok"] * len(findings)
    assert (files(tmp_path), files(text_bundle.path)) == (before, shipped)


def test_embeddings_of_the_hosts_own(embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = look(monkeypatch, ON_CPU, bundle=embedded_bundle.path)
    assert all(finding.ok for finding in findings.values())
    assert "K = 3, D = 6" in findings["bundle"].detail
    assert "encoder" not in findings
    assert "4 answers" in findings["score"].detail


def test_its_lines_fit_a_terminal(
    embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "survey", lambda _: ON_CPU)
    doctor.doctor(bundle=embedded_bundle.path)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "4 answers, for a user who adapts to 3 comparisons of them, in" in " ".join(out.split())
    long = f"/{'x' * 90}/a-b"
    monkeypatch.setattr(doctor, "examine", lambda *_: [Finding("database", True, f"{long} is whole", f"cat {long} x")])
    doctor.doctor()
    begin = " " * 15
    assert capsys.readouterr().out == f"ok   database  {long}\n{begin}is whole\n{begin}-> cat {long} x\n"


@pytest.mark.parametrize("name", ["base_rewards.onnx", "manifest.json"])
def test_a_damaged_bundle(embedded_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = Path(shutil.copytree(embedded_bundle.path, tmp_path / "damaged"))
    with (path / name).open("ab") as file:
        file.write(b"x")
    finding = look(monkeypatch, ON_CPU, bundle=path)["bundle"]
    assert not finding.ok
    assert name in finding.detail


@pytest.mark.slow
def test_no_bundle_and_no_database(tmp_path: Path) -> None:
    run = mrm("doctor", "--bundle", tmp_path / "nothing", "--database", f"sqlite:///{tmp_path / 'new.db'}")
    assert run.code == 1
    lines = run.out.splitlines()
    assert any(line.startswith("BAD  bundle ") and "There is no bundle at" in line for line in lines)
    assert any(line.startswith("BAD  database ") for line in lines)
    assert "does not exist; check the path" in " ".join(run.out.split())
    assert any(line.lstrip().startswith("-> mrm db upgrade --database 'sqlite:///") for line in lines)
    assert not list(tmp_path.iterdir())


def test_a_bundle_cannot_run_where_nothing_does(embedded_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    hollow = replace(ON_CPU, trials=(), error="ONNX Runtime is hollow. Run: something")
    findings = look(monkeypatch, hollow, bundle=embedded_bundle.path)
    assert findings["bundle"].ok
    assert not findings.keys() & {"score", "providers listed", "providers started"}
    assert (findings["onnx runtime"].ok, findings["onnx runtime"].detail) == (False, "ONNX Runtime is hollow.")
    assert "pip install 'mrm-sdk[cpu]'" in findings["onnx runtime"].fix.replace(
        "'mrm-sdk[cpu]'", "pip install 'mrm-sdk[cpu]'"
    )


def test_databases_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look_at(name: str) -> Finding:
        before = files(tmp_path)
        finding = look(monkeypatch, ON_CPU, f"sqlite:///{tmp_path / name}")["database"]
        assert files(tmp_path) == before
        return finding

    old = Database(f"sqlite:///{tmp_path / 'old #1.db'}", Settings())
    upgrade(old, "0001")
    # While a process has it open, the last writes are in the WAL file.
    assert (tmp_path / "old #1.db-wal").exists()
    open_elsewhere = look_at("old #1.db")
    old.close()
    assert not (tmp_path / "old #1.db-wal").exists()
    for finding in (open_elsewhere, look_at("old #1.db")):
        assert (finding.ok, finding.fix) == (False, "mrm db upgrade --database URL")
        assert "at revision 0001" in finding.detail
    connection = sqlite3.connect(tmp_path / "foreign.db")  # not in the mode that this package uses
    connection.execute("CREATE TABLE orders (id INTEGER)")
    connection.close()
    assert "at revision none" in look_at("foreign.db").detail
    (tmp_path / "empty.db").write_bytes(b"")
    assert "at revision none" in look_at("empty.db").detail
    (tmp_path / "text.db").write_text("this is no database, but a text that is long enough to be read as one")
    assert "holds something else" in look_at("text.db").detail


def test_other_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(monkeypatch, ON_CPU, "sqlite://")["database"].detail == "sqlite://, in memory: gone with each process"
    finding = look(monkeypatch, ON_CPU, "postgresql://ada:secret@127.0.0.1:1/x?password=hidden")["database"]
    assert not finding.ok
    assert "unavailable" in finding.detail
    assert not {"secret", "hidden"} & set(finding.detail.replace("=", " ").replace("@", " ").replace(":", " ").split())
    assert "does not parse" in look(monkeypatch, ON_CPU, "nonsense")["database"].detail


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert look(monkeypatch, ON_CPU)["settings"] == Finding("settings", True, "defaults")
    monkeypatch.setenv("MRM_DATABASE", "sqlite:///elsewhere.db")  # an option's, no setting
    monkeypatch.setenv("MRM_ENCODER_API_KEY", "sesame")
    monkeypatch.setenv("MRM_ENCODER_URL", "https://ada:sesame@host:8/v1?key=sesame")
    finding = look(monkeypatch, ON_CPU)["settings"]
    assert finding.ok
    assert "MRM_ENCODER_URL=https://***@host:8/v1?***" in finding.detail
    assert "MRM_ENCODER_API_KEY=***" in finding.detail
    assert "sesame" not in finding.detail
    monkeypatch.setenv("MRM_ENCODER_URL", "https://[sesame")
    assert "MRM_ENCODER_URL=***" in look(monkeypatch, ON_CPU)["settings"].detail
    for url, shown in {
        "ada:sesame@host:80": "***@host:80",
        "http://ada:sesa/sesame@host/v1": "http://***@host/v1",
        "http://ada:sesa?sesame@host": "http://***",
        "http://host/v1?a=b@c&key=sesame": "http://***",
        "host:80/v1?key=sesame": "host:80/v1?***",
        "http://host/v1#sesame": "http://host/v1?***",
        "http://host:80/v1": "http://host:80/v1",
    }.items():
        monkeypatch.setenv("MRM_ENCODER_URL", url)
        detail = look(monkeypatch, ON_CPU)["settings"].detail
        assert f"MRM_ENCODER_URL={shown}" in detail.split(", ")
        assert "sesame" not in detail
        assert doctor._masked("encoder_url", SecretStr(url)) == doctor._masked("encoder_url", url) == shown
    monkeypatch.setenv("MRM_PROVIDER", "cpu")
    finding = look(monkeypatch, ON_CPU)["settings"]
    assert (finding.ok, "no such setting: MRM_PROVIDER" in finding.detail) == (False, True)
    monkeypatch.setenv("MRM_THREADS", "many")
    finding = look(monkeypatch, ON_CPU)["settings"]
    assert (finding.ok, "MRM_THREADS" in finding.detail, "sesame" in finding.detail) == (False, True, False)


@pytest.mark.slow
def test_invalid_settings_do_not_stop_the_rest(embedded_bundle: Bundle) -> None:
    run = mrm("doctor", "--bundle", embedded_bundle.path, "--json", "-", MRM_PROVIDERS="fast")
    assert (run.code, run.err) == (1, "")
    findings = as_json(run)
    assert [name for name, finding in findings.items() if not finding["ok"]] == ["settings"]
    assert "MRM_PROVIDERS" in str(findings["settings"]["detail"])
    assert findings["score"]["ok"]


def test_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "available_cpus", lambda: 2)
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 64)
    finding = look(monkeypatch, ON_CPU)["cpus"]
    assert (finding.detail, finding.fix) == ("2 for this process, of the machine's 64", "")
    monkeypatch.setenv("MRM_THREADS", "8")
    finding = look(monkeypatch, ON_CPU)["cpus"]
    assert (finding.ok, "unset MRM_THREADS" in finding.fix) == (True, True)


def install(folder: Path, name: str) -> None:
    (folder / f"{name.replace('-', '_')}-1.31.0.dist-info").mkdir()
    (folder / f"{name.replace('-', '_')}-1.31.0.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.31.0\n"
    )


@pytest.mark.slow
def test_both_distributions(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime")
    install(tmp_path, "onnxruntime-gpu")
    finding = as_json(mrm("doctor", "--json", "-", PYTHONPATH=str(tmp_path)))["onnx runtime"]
    assert not finding["ok"]
    assert finding["detail"] == "onnxruntime 1.31.0 and onnxruntime-gpu 1.31.0 overwrite each other's files"
    assert str(finding["fix"]).startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'mrm-sdk[")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "raise ImportError('not here')"])
def test_no_runtime(tmp_path: Path, text: str) -> None:
    (tmp_path / "onnxruntime.py").write_text(text)
    run = mrm("doctor", PYTHONPATH=str(tmp_path))
    assert (run.code, run.err) == (1, "")
    assert "BAD  onnx runtime" in run.out
    assert "-> pip uninstall -y onnxruntime onnxruntime-gpu && pip install" in run.out


def test_a_machine_without_a_gpu_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = look(monkeypatch, ON_CPU)
    assert findings["nvidia"] == Finding("nvidia", True, "no NVIDIA GPU; running on the CPU")
    assert "cuda libraries" not in findings
    assert findings["providers started"] == Finding("providers started", True, CPU)


def test_a_gpu_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = look(monkeypatch, ON_GPU)
    assert all(finding.ok and not finding.fix for finding in findings.values())
    assert findings["nvidia"].detail == "NVIDIA H100; driver for CUDA up to 13.2"
    assert findings["cuda libraries"].detail == "CUDA runtime 13.0, cuDNN 9.14"
    # A library that only some graphs load is a hint.
    lacking = replace(ON_GPU, nvidia=replace(H100, missing=("libcudnn.so.9",)))
    finding = look(monkeypatch, lacking)["cuda libraries"]
    assert (finding.ok, finding.fix) == (True, "pip install 'nvidia-cudnn-cu13~=9.0'")
    # As is a GPU of which the installed runtime makes nothing.
    finding = look(monkeypatch, replace(ON_CPU, nvidia=H100))["nvidia"]
    assert (finding.ok, "pip install 'mrm-sdk[gpu]'" in finding.fix) == (True, True)


@pytest.mark.parametrize(
    ("nvidia", "fix"),
    [
        (Nvidia(), "pip install 'mrm-sdk[cpu]'  # or set MRM_PROVIDERS=cpu"),
        (Nvidia(card=True), "install NVIDIA's driver"),
        (Nvidia(card=True, driver="13.0", why="no device (100)"), "nvidia-smi"),
        (replace(H100, driver="12.8"), "one for CUDA 13, or: pip install 'onnxruntime-gpu<1.27'"),
        (replace(H100, missing=("libcudnn.so.9",)), "pip install 'nvidia-cudnn-cu13~=9.0'"),
        (replace(H100, missing=("libcublas.so.13", "libcudnn.so.9")), "pip install 'onnxruntime-gpu[cuda,cudnn]"),
        (H100, "set MRM_PROVIDERS=cpu until CUDAExecutionProvider works"),
    ],
)
def test_cuda_that_does_not_start(
    monkeypatch: pytest.MonkeyPatch, embedded_bundle: Bundle, nvidia: Nvidia, fix: str
) -> None:
    findings = look(monkeypatch, replace(GPU_FAILS, nvidia=nvidia), bundle=embedded_bundle.path)
    finding = findings["providers started"]
    assert (finding.ok, finding.detail) == (False, f"{CPU}; {CUDA} did not: it broke")
    assert fix in finding.fix
    if "cuda libraries" in findings:
        assert findings["cuda libraries"].ok is not bool(nvidia.missing)
    assert CPU in findings["score"].detail  # the bundle is tried on what does start
    monkeypatch.setenv("MRM_PROVIDERS", "cpu")
    assert look(monkeypatch, replace(GPU_FAILS, nvidia=nvidia))["providers started"].ok


def test_other_providers_that_do_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRM_DEVICE_ID", "3")
    assert look(monkeypatch, GPU_FAILS)["providers started"].fix == "set MRM_DEVICE_ID to less than 1"
    monkeypatch.setenv("MRM_PROVIDERS", "cuda")
    finding = look(monkeypatch, ON_CPU)["providers listed"]
    assert (finding.ok, "pip install 'mrm-sdk[gpu]'" in finding.fix) == (False, True)
    monkeypatch.setenv("MRM_PROVIDERS", "openvino")
    finding = look(monkeypatch, ON_CPU)["providers listed"]
    assert (finding.ok, "has it" in finding.fix) == (False, True)
    started = replace(ON_CPU, trials=(Trial("OpenVINOExecutionProvider", False, "x"), *ON_CPU.trials))
    assert "OpenVINOExecutionProvider" in look(monkeypatch, started)["providers started"].fix
    nothing = replace(ON_CPU, trials=(Trial(CPU, False, "illegal instruction"),))
    assert not look(monkeypatch, nothing)["providers started"].ok
