"""Adaptation against second implementations, and batched against one user at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs, pad
from mrm_sdk.core.inner_loop import Prior, derivatives, gradient_descent, newton, newton_serving
from mrm_sdk.core.posterior import laplace_covariance
from tests.core.objective import objective


def make_prior(size: int, seed: int = 0) -> Prior:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(size, size, generator=generator, dtype=torch.float64)
    precision = root @ root.T / size + torch.eye(size, dtype=torch.float64)
    return Prior(torch.randn(size, generator=generator, dtype=torch.float64), precision, torch.tensor(0.7).double())


def make_user(pairs: int, size: int, seed: int) -> Pairs:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(pairs, size, generator=generator, dtype=torch.float64)
    strength = 0.5 + torch.rand(pairs, generator=generator, dtype=torch.float64)
    tie = (torch.rand(pairs, generator=generator) < 0.3).double()
    return Pairs(z, strength, tie)


def alone(user: Pairs) -> Pairs:
    return Pairs(*(field.unsqueeze(0) for field in user))


def serve(pairs: Pairs, prior: Prior) -> Tensor:
    return newton_serving(pairs, prior, max_steps=8, tolerance=1e-12)


@pytest.mark.parametrize("size", [1, 2, 8])
def test_derivatives_are_those_of_the_objective(size: int) -> None:
    prior, pairs = make_prior(size), alone(make_user(5, size, 1))
    weights = torch.randn(1, size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gradient, hessian = derivatives(weights, pairs, prior)
    by_torch = torch.autograd.functional.jacobian(lambda w: objective(w, pairs, prior).sum(), weights)
    torch.testing.assert_close(gradient, by_torch)
    curvature = torch.autograd.functional.hessian(lambda w: objective(w.unsqueeze(0), pairs, prior).sum(), weights[0])
    torch.testing.assert_close(hessian[0], curvature)


def test_newton_finds_the_minimum_that_lbfgs_finds() -> None:
    prior, pairs = make_prior(4), alone(make_user(30, 4, 3))
    weights = prior.w0.clone().unsqueeze(0).requires_grad_()
    other = torch.optim.LBFGS(
        [weights], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        other.zero_grad()
        loss = objective(weights, pairs, prior).sum()
        loss.backward()
        return loss

    other.step(closure)
    torch.testing.assert_close(serve(pairs, prior), weights.detach(), atol=1e-7, rtol=0)


@pytest.mark.parametrize("lengths", [[1], [0, 1, 2], [60, 0, 3, 17, 1]])
@pytest.mark.parametrize("size", [1, 8])
def test_batched_equals_one_at_a_time(lengths: list[int], size: int) -> None:
    prior = make_prior(size)
    users = [make_user(length, size, seed) for seed, length in enumerate(lengths)]
    batched = serve(pad(users), prior)
    for row, user in zip(batched, users, strict=True):
        torch.testing.assert_close(row, serve(alone(user), prior)[0], atol=1e-6, rtol=0)
    steps = gradient_descent(pad(users), prior.w0, steps=3, learning_rate=0.05)
    for row, user in zip(steps, users, strict=True):
        single = gradient_descent(alone(user), prior.w0, steps=3, learning_rate=0.05)[0]
        torch.testing.assert_close(row, single, atol=1e-6, rtol=0)


def test_without_comparisons_the_prior_comes_back_exactly() -> None:
    prior = make_prior(8)
    unknown = alone(make_user(0, 8, 0))
    assert torch.equal(serve(unknown, prior)[0], prior.w0)
    assert torch.equal(newton(unknown, prior, steps=3)[0], prior.w0)
    torch.testing.assert_close(laplace_covariance(serve(unknown, prior), unknown, prior)[0], prior.precision.inverse())
    expected = torch.softmax(prior.w0, -1)
    assert torch.equal(gradient_descent(unknown, prior.w0, steps=1, learning_rate=0.1)[0], expected)


def test_order_of_comparisons_does_not_matter() -> None:
    prior, user = make_prior(8), make_user(40, 8, 5)
    shuffled = Pairs(*(field[torch.randperm(40, generator=torch.Generator().manual_seed(0))] for field in user))
    torch.testing.assert_close(serve(alone(user), prior), serve(alone(shuffled), prior), atol=1e-12, rtol=0)


def test_a_step_that_does_not_lower_the_objective_is_halved() -> None:
    # From far away on the flat side of the loss a full Newton step overshoots and makes J worse.
    prior = Prior(torch.tensor([30.0]).double(), torch.tensor([[1e-6]]).double(), torch.tensor(1.0).double())
    pairs = alone(
        Pairs(torch.tensor([[-1.0]] * 3).double(), torch.ones(3).double(), torch.tensor([0.0, 0, 1]).double())
    )
    value = objective(prior.w0.unsqueeze(0), pairs, prior)
    full = newton(pairs, prior, steps=1)
    start_worse = objective(full, pairs, prior) > value
    for steps in (1, 2, 4, 8):
        new = objective(newton_serving(pairs, prior, max_steps=steps, tolerance=1e-12), pairs, prior)
        assert bool(new <= value * (1 + 1e-12))
        value = new
    assert bool(start_worse)


@pytest.mark.parametrize(("scale", "pairs", "strength"), [(1, 1000, 100), (30, 200, 1), (1000, 50, 1), (1e6, 5, 1)])
def test_extreme_feedback_converges_too(scale: float, pairs: int, strength: float) -> None:
    prior, user = make_prior(4), make_user(pairs, 4, 11)
    user = alone(user._replace(z=user.z * scale, strength=user.strength * strength))
    weights = newton_serving(user, prior, max_steps=50, tolerance=1e-9)
    further = newton_serving(user, prior, max_steps=400, tolerance=0.0)
    lost = objective(weights, user, prior) - objective(further, user, prior)
    assert float(lost) <= 1e-6 * float(objective(further, user, prior)) + 1e-9


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e8])
def test_weights_stay_finite_at_any_scale(scale: float) -> None:
    prior, user = make_prior(4), make_user(20, 4, 6)
    weights = serve(alone(user._replace(z=user.z * scale)), prior)
    assert bool(torch.isfinite(weights).all())


def test_newton_is_differentiable_through_its_steps() -> None:
    prior = make_prior(3)
    user = alone(make_user(4, 3, 7))
    inputs = tuple(tensor.clone().requires_grad_() for tensor in (prior.w0, prior.precision, prior.rho, user.z))

    def adapted(w0: Tensor, precision: Tensor, rho: Tensor, z: Tensor) -> Tensor:
        return newton(user._replace(z=z), Prior(w0, precision, rho), steps=3)

    assert torch.autograd.gradcheck(adapted, inputs)


def test_gradient_descent_is_torchs_adam() -> None:
    user, logits = make_user(7, 3, 8), torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    free = logits.clone().requires_grad_()
    adam = torch.optim.Adam([free], lr=0.05)
    for _ in range(4):
        adam.zero_grad()
        margin = user.z @ torch.softmax(free, -1)
        loss = torch.nn.functional.softplus(-margin) + user.tie * margin / 2
        ((loss * user.strength).sum() / user.strength.sum()).backward()
        adam.step()
    ours = gradient_descent(alone(user), logits, steps=4, learning_rate=0.05)[0]
    torch.testing.assert_close(ours, torch.softmax(free.detach(), -1), atol=1e-10, rtol=0)


def test_covariance_shrinks_with_comparisons() -> None:
    prior, user = make_prior(4), make_user(50, 4, 9)
    traces = []
    for shots in (0, 10, 50):
        pairs = alone(user).first(shots)
        traces.append(float(laplace_covariance(serve(pairs, prior), pairs, prior).diagonal(dim1=-2, dim2=-1).sum()))
    assert np.all(np.diff(traces) < 0)
