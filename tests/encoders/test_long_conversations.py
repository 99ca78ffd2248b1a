"""The newest question of a long conversation counts, with the real MiniLM in a bundle."""

from __future__ import annotations

import pytest

from mrm_sdk import Bundle, Client

pytestmark = pytest.mark.slow

ANSWERS = ["Use Python's csv module.", "Water it on Mondays."]
HISTORY = [
    {"role": role, "content": f"turn {turn}: let us talk about gardening, soil, pots and watering on a warm day"}
    for turn in range(10)
    for role in ("user", "assistant")
]


def test_the_last_question_of_twenty_turns_changes_the_scores(text_bundle: Bundle) -> None:
    with Client("sqlite://", bundle=text_bundle) as client:
        questions = [
            {"role": "user", "content": text} for text in ("How do I parse a CSV file?", "When do I water it?")
        ]
        one, other = (client.score("ada", ANSWERS, prompt=[*HISTORY, question]) for question in questions)
        assert abs(one - other).max() > 1e-3
        earlier = client.score("ada", ANSWERS, prompt=[*HISTORY[:2], *HISTORY, questions[0]])
        assert abs(one - earlier).max() < 1e-6  # what is dropped is the beginning
