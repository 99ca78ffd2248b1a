"""Figures per user and over users.

Margins are ``w · z`` of comparisons, or what a prediction makes of them (:func:`predicted`). They may carry axes in
front of the users', such as one for numbers of shots: they come back in the result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mrm_sdk.core.batching import Pairs
from mrm_sdk.core.losses import bradley_terry, weighted_mean
from mrm_sdk.core.posterior import moderated
from mrm_sdk.core.ranking import decided, mean_decided, right

BINS = 15


def margins(query: Pairs, weights: Tensor) -> Tensor:
    """Margins of comparisons [users, pairs, ...] under weights [..., users, K]: [..., users, pairs]."""
    return torch.einsum("upk,...uk->...up", query.z, weights)


def predicted(query: Pairs, margin: Tensor, covariance: Tensor) -> Tensor:
    """Margins as probabilities should use them: closer to 0 the less sure the weights are.

    Args:
        query: [users, pairs, ...].
        margin: at the adapted weights, [users, pairs].
        covariance: of these weights, [users, K, K].
    """
    return moderated(margin, ((query.z @ covariance) * query.z).sum(-1))


def accuracy(query: Pairs, margin: Tensor) -> Tensor:
    """Share of each user's decided query comparisons in which the chosen response scores higher.

    Equal scores count half; ties say nothing of an order and are left out.

    Args:
        query: [users, pairs, ...].
        margin: [..., users, pairs].

    Returns:
        [..., users], in [0, 1]; NaN for a user without a decided comparison.
    """
    return mean_decided(right(margin), query)


def loss(query: Pairs, margin: Tensor) -> Tensor:
    """Mean Bradley–Terry loss of each user, ties included: [..., users], in nats."""
    return weighted_mean(bradley_terry(margin, query.tie), query.strength)


def brier(query: Pairs, margin: Tensor) -> Tensor:
    """Mean squared error of the predicted probability ``σ(margin)``, over decided comparisons: [..., users], in [0, 1].

    It is the same whichever response of a pair is named first; always saying ½ gives ¼.
    """
    return mean_decided(torch.sigmoid(-margin).square(), query)


def reliability(query: Pairs, margin: Tensor) -> Tensor:
    """Sums for a reliability diagram, and for :func:`ece`; sums of several batches of users add up.

    Which response of a pair is called the first is arbitrary, so a prediction p is one of confidence ``max(p, 1 − p)``
    that is right or wrong. Confidence falls into :data:`BINS` bins of equal width over [½, 1]: their edges are the same
    for all methods. Every user counts 1 in all, as in the mean accuracy, however many comparisons they made.

    Returns:
        Users' shares, confidence times share, and correctness times share: [..., 3, BINS].
    """
    confidence = torch.sigmoid(margin.abs())
    counted = decided(query).to(margin)
    share = (counted / counted.sum(-1, keepdim=True).clamp_min(1)).expand_as(margin)
    at = ((confidence - 0.5) * 2 * BINS).long().clamp(0, BINS - 1).flatten(-2)
    sums = [torch.zeros(*at.shape[:-1], BINS).to(margin).scatter_add_(-1, at, (value * share).flatten(-2))
            for value in (torch.ones_like(margin), confidence, right(margin))]  # fmt: skip
    return torch.stack(sums, -2)


def ece(sums: Tensor) -> float:
    """Expected calibration error: the mean distance, over bins by their share, of correctness from confidence.

    Args:
        sums: what :func:`reliability` gives for margins [users, pairs]: [3, BINS].
    """
    share, confidence, right = sums
    return float((confidence - right).abs().sum() / share.sum())


def reverse(support: Pairs) -> Pairs:
    """The same comparisons with the opposite choice in each; ties stay ties."""
    return support._replace(z=torch.where((support.tie == 0).unsqueeze(-1), -support.z, support.z))


def worst_share(values: Tensor, share: float) -> float:
    """Mean over the ``share`` of users (at least one) whose values are lowest."""
    count = max(1, int(share * len(values)))
    return float(torch.sort(values).values[:count].mean())


def worst_again(values: Tensor, questions: Tensor, worst: float) -> float:
    """What users of a low score would score on as many other questions: part of a low score is bad luck.

    A score regresses to the mean by what of the scores' variance is not chance (T. Kelley, 1927). A question counts as
    one draw; questions about the same texts are less than that, so some luck remains.

    Args:
        values: scores of all users, in [0, 1], [users].
        questions: how many each user was asked, [users].
        worst: the mean score of those users.
    """
    chance = (values * (1 - values) / questions).mean()
    variance = values.var(correction=0)
    share = float((1 - chance / variance).clamp(0, 1)) if float(variance) > 0 else 0.0
    mean = float(values.mean())
    return mean + share * (worst - mean)
