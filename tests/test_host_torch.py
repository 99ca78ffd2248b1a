"""Hosts that changed torch's defaults: nothing differs, and their defaults stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mrm_sdk import Bundle, Client, Comparison, Rating, Response
from mrm_sdk.data.datasets import Dataset
from mrm_sdk.encoders import open_encoder
from mrm_sdk.evaluation.protocol import evaluate
from mrm_sdk.training.config import TrainingConfig
from mrm_sdk.training.pipeline import train_bundle

DEFAULTS: dict[str, Callable[[], object]] = {
    "float64": lambda: torch.set_default_dtype(torch.float64),
    "bfloat16": lambda: torch.set_default_dtype(torch.bfloat16),
    "no gradients": lambda: torch.set_grad_enabled(False),
    "inference mode": lambda: torch.autograd.grad_mode._enter_inference_mode(True),
    "another device": lambda: torch.set_default_device("meta"),  # stands for "cuda"
    "deterministic": lambda: torch.use_deterministic_algorithms(True),
}


def torch_defaults() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
    )


@pytest.fixture(params=DEFAULTS)
def host(request: pytest.FixtureRequest) -> Iterator[None]:
    mode = DEFAULTS[request.param]()
    before = torch_defaults()
    try:
        yield
        assert torch_defaults() == before
    finally:
        if request.param == "inference mode":
            torch.autograd.grad_mode._exit_inference_mode(mode)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(False)


def options(preset: str) -> TrainingConfig:
    return TrainingConfig.preset(preset).with_settings(base_functions=2, **({"steps": 4} if preset == "paper" else {}))


@pytest.fixture(scope="module", params=["newton", "paper"])
def usual(
    request: pytest.FixtureRequest, embedded_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    out = tmp_path_factory.mktemp("usual") / "bundle"
    train_bundle(embedded_dataset, out, config=options(request.param), name=request.param)
    return Bundle(out)


def test_training_and_evaluation_do_not_depend_on_the_hosts_defaults(
    host: None, usual: Bundle, embedded_dataset: Dataset, tmp_path: Path
) -> None:
    train_bundle(embedded_dataset, tmp_path / "bundle", config=options(usual.manifest.name))
    bundle = Bundle(tmp_path / "bundle")
    for ours, theirs in zip(bundle.prior, usual.prior, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    reports = [evaluate(fitted, embedded_dataset, open_encoder(None, fitted)) for fitted in (bundle, usual)]
    assert reports[0].points == reports[1].points


def serve(path: Path, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    vectors = np.random.default_rng(0).normal(size=(6, dimension))
    responses = [Response(embedding=vector) for vector in vectors]
    with Client("sqlite://", bundle=path) as client:
        client.record(Comparison(user_id="ada", chosen=responses[0], rejected=responses[1]))
        client.record_many(Rating(user_id="ada", response=responses[2 + n], value=n) for n in range(3))
        return client.personalize("ada").weights, client.score("ada", responses)


def test_serving_does_not_depend_on_the_hosts_defaults(host: None, usual: Bundle) -> None:
    expected = serve_in_new_thread(usual)
    for ours, theirs in zip(serve(usual.path, usual.manifest.dimension), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def serve_in_new_thread(bundle: Bundle) -> tuple[np.ndarray, np.ndarray]:
    """Gradients and devices are each thread's own: a new thread has torch's original ones."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(serve, bundle.path, bundle.manifest.dimension).result()


def test_serving_one_user_starts_no_threads_and_leaves_the_hosts_number(usual: Bundle) -> None:
    before = torch.get_num_threads()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        serve(usual.path, usual.manifest.dimension)
    heavy = {event.key for event in profile.key_averages()} & {
        "aten::bmm",
        "aten::baddbmm",
        "aten::mm",
        "aten::matmul",
        "aten::linalg_solve_ex",
        "aten::linalg_inv_ex",
    }
    assert not heavy  # these share work among threads, which costs more than one user's matrices
    assert torch.get_num_threads() == before
