"""Texts that a bundle knows again: by their embedding, in torch and in every graph alike."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from mrm_sdk.training.model import BaseRewards, KnownTexts
from mrm_sdk.training.onnx_export import export_base_rewards

D, K, KNOWN = 12, 3, 7


def setting() -> tuple[BaseRewards, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(KNOWN, D, generator=generator) + 5  # as models give them: all in one corner
    residual = torch.randn(KNOWN, K, generator=generator)
    weight, bias = torch.randn(K, D, generator=generator) / D, torch.randn(K, generator=generator)
    return BaseRewards(weight, bias, KnownTexts.of(embeddings, residual)).eval(), embeddings


def by_text(module: BaseRewards, embeddings: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(embeddings, module.weight, module.bias)


def test_a_known_text_gets_its_residual_and_others_nothing() -> None:
    module, embeddings = setting()
    assert module.known is not None
    with torch.no_grad():
        torch.testing.assert_close(module(embeddings) - by_text(module, embeddings), module.known.residual)
        new = embeddings + 0.5
        torch.testing.assert_close(module(new), by_text(module, new))


def test_the_noise_of_a_server_does_not_hide_a_text() -> None:
    module, embeddings = setting()
    noisy = embeddings * (1 + 1e-3 * torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1)))
    assert module.known is not None
    with torch.no_grad():
        torch.testing.assert_close(module(noisy) - by_text(module, noisy), module.known.residual, atol=1e-4, rtol=0)


def test_texts_that_an_encoder_cannot_tell_apart_share_the_mean() -> None:
    embeddings = torch.randn(3, D, generator=torch.Generator().manual_seed(2))
    embeddings[1] = embeddings[0]
    residual = torch.tensor([[1.0], [3.0], [7.0]])
    module = BaseRewards(torch.zeros(1, D), torch.zeros(1), KnownTexts.of(embeddings, residual))
    assert module(embeddings).flatten().tolist() == [2.0, 2.0, 7.0]


def test_a_single_text_can_be_known() -> None:
    one = torch.ones(1, D)
    module = BaseRewards(torch.zeros(1, D), torch.zeros(1), KnownTexts.of(one, torch.tensor([[2.0]])))
    assert module(torch.cat([one, one * 1.5])).flatten().tolist() == [2.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_graphs_know_the_same_texts(dtype: torch.dtype) -> None:
    module, embeddings = setting()
    session = onnxruntime.InferenceSession(export_base_rewards(module, dtype), providers=["CPUExecutionProvider"])
    some = torch.cat([embeddings, embeddings + 0.5, embeddings * 1.2]).to(dtype)
    (got,) = session.run(None, {session.get_inputs()[0].name: some.numpy()})
    with torch.no_grad():
        expected = module(some.float()).numpy()
    assert got.dtype == some.numpy().dtype
    np.testing.assert_allclose(got, expected, atol=1e-5 if dtype == torch.float32 else 2e-2)
