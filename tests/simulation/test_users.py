"""The corpus keeps its promises, and synthetic people judge by the tastes they are given."""

from __future__ import annotations

import numpy as np

from mrm_sdk.data.contents import QUERY, SUPPORT
from mrm_sdk.simulation.corpus import AXES, describe, load_corpus
from mrm_sdk.simulation.users import SHARPNESS, UNUSUAL_SHARE, draw_users, simulate_judgements


def test_corpus_is_large_balanced_and_free_of_repetition() -> None:
    questions = load_corpus()
    assert len(questions) >= 60
    assert len({question.prompt for question in questions}) == len(questions)
    answers = [answer for question in questions for answer in question.answers]
    assert len(set(answers)) == len(answers) == 4 * len(questions)
    for question in questions:
        assert (question.styles.sum(0) == 0).all()
        assert len({tuple(style) for style in question.styles}) == 4


def test_styles_can_be_seen_in_the_texts() -> None:
    questions = load_corpus()
    styles = np.concatenate([question.styles for question in questions])
    texts = [answer for question in questions for answer in question.answers]
    words = np.array([len(text.split()) for text in texts])
    long = styles[:, AXES.index("length")] > 0
    assert words[long].min() > words[~long].max()
    lines = np.array([text.count("\n") for text in texts])
    steps = styles[:, AXES.index("structure")] > 0
    assert lines[steps].min() >= 1
    # No two answers begin with the same six words: they are not made from a template.
    starts = [" ".join(text.split()[:6]) for text in texts]
    assert len(set(starts)) == len(starts)


def test_a_population_is_reproducible_and_partly_unusual() -> None:
    people = draw_users(2000, seed=3)
    assert np.array_equal(people.tastes, draw_users(2000, seed=3).tastes)
    assert not np.array_equal(people.tastes, draw_users(2000, seed=4).tastes)
    assert abs(people.unusual.mean() - UNUSUAL_SHARE) < 0.03
    assert people.tastes[people.unusual].mean(0) @ people.tastes[~people.unusual].mean(0) < 0


def test_people_choose_by_bradley_terry() -> None:
    questions, people = load_corpus()[:20], draw_users(400, seed=0)
    data = simulate_judgements(
        people, questions, support=range(10), query=range(10, 20), support_pairs=30, query_pairs=10, seed=0
    )
    styles = np.concatenate([question.styles for question in questions])
    gain = ((styles[data.chosen] - styles[data.rejected]) * people.tastes[data.user]).sum(1)
    # Of choices with a gain of ±g, the share that goes with taste is σ(sharpness · g).
    for low, high in ((0.1, 0.5), (0.5, 1.0), (1.0, 2.0)):
        near = (np.abs(gain) > low) & (np.abs(gain) <= high)
        expected = (1 / (1 + np.exp(-SHARPNESS * np.abs(gain[near])))).mean()
        assert abs((gain[near] > 0).mean() - expected) < 0.05
    prompts = {phase: {data.items[i].prompt for i in data.chosen[data.phase == phase]} for phase in (SUPPORT, QUERY)}
    assert not prompts[SUPPORT] & prompts[QUERY]
    pairs = list(
        zip(data.user, np.minimum(data.chosen, data.rejected), np.maximum(data.chosen, data.rejected), strict=True)
    )
    assert len(set(pairs)) == len(pairs)


def test_without_noise_the_query_holds_true_preferences() -> None:
    questions, people = load_corpus()[:4], draw_users(50, seed=1)
    data = simulate_judgements(
        people, questions, support=[0, 1], query=[2, 3], support_pairs=2, query_pairs=12, seed=1, noisy_query=False
    )
    styles = np.concatenate([question.styles for question in questions])
    gain = ((styles[data.chosen] - styles[data.rejected]) * people.tastes[data.user]).sum(1)
    assert (gain[data.phase == QUERY] > 0).all()


def test_describe_puts_the_strongest_first_and_leaves_out_the_neutral() -> None:
    assert describe(np.array([0.1, -2.0, 1.0, 0.0, 0.3])) == "plain, warm, bold"
