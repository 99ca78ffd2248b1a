"""How sure the weights are, and what that does to predictions."""

from __future__ import annotations

import pytest
import torch

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.inner_loop import Prior, newton_serving
from mrm_sdk.core.posterior import laplace_covariance, moderated
from tests.core.objective import objective


def test_the_covariance_is_the_inverse_curvature_of_the_objective() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(1, 6, 3, generator=generator, dtype=torch.float64)
    pairs = Pairs(z, torch.rand(1, 6, generator=generator).double(), torch.zeros(1, 6, dtype=torch.float64))
    prior = Prior(
        torch.ones(3).double(), torch.diag(torch.tensor([1.0, 2.0, 3.0])).double(), torch.tensor(0.7).double()
    )
    weights = newton_serving(pairs, prior, max_steps=50, tolerance=1e-12)
    curvature = torch.autograd.functional.hessian(lambda w: objective(w, pairs, prior).sum(), weights)[0, :, 0]
    torch.testing.assert_close(laplace_covariance(weights, pairs, prior)[0], torch.linalg.inv(curvature))
    nothing = pairs._replace(strength=torch.zeros(1, 6, dtype=torch.float64))
    covariance = laplace_covariance(weights, nothing, prior)[0]
    torch.testing.assert_close(covariance, torch.linalg.inv(prior.precision))


def test_a_moderated_margin_predicts_the_mean_over_the_posterior() -> None:
    draws = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    for margin, variance in ((0.5, 0.3), (2.0, 1.0), (-1.0, 4.0)):
        expected = float(torch.sigmoid(margin + variance**0.5 * draws).mean())
        got = moderated(torch.tensor(margin), torch.tensor(variance))
        assert float(torch.sigmoid(got)) == pytest.approx(expected, abs=0.01)


def test_a_sure_margin_stays_as_it_is() -> None:
    margin = torch.tensor([0.3, -7.0])
    assert moderated(margin, torch.tensor([0.0, -1e-9])).tolist() == margin.tolist()  # rounding may leave less than 0
    assert moderated(margin, torch.tensor(1e12)).abs().max() < 1e-4
