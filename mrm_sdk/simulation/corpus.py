"""Prompts with answers of known style, written for this project.

128 prompts of the kind people ask an assistant, each with four answers. The style of an answer is a point on five
axes, each −1 or +1, balanced within a prompt: on every axis two answers stand on either side.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

AXES = ("length", "technical", "warmth", "structure", "boldness")
WORDS = {
    "length": ("short", "long"),
    "technical": ("plain", "technical"),
    "warmth": ("dry", "warm"),
    "structure": ("prose", "steps"),
    "boldness": ("cautious", "bold"),
}


@dataclass(frozen=True)
class Question:
    """A prompt and its answers.

    Args:
        prompt: what was asked.
        answers: texts.
        styles: of the answers on :data:`AXES`, [answers, axes], each −1 or +1.
    """

    prompt: str
    answers: tuple[str, ...]
    styles: NDArray[np.float64]


def load_corpus() -> list[Question]:
    """Reads the corpus that ships with the package."""
    text = (files("mrm_sdk.simulation") / "corpus.jsonl").read_text(encoding="utf-8")
    questions = []
    for line in text.splitlines():
        row = json.loads(line)
        styles = np.array([[answer["style"][axis] for axis in AXES] for answer in row["answers"]], np.float64)
        questions.append(Question(row["prompt"], tuple(answer["text"] for answer in row["answers"]), styles))
    return questions


def describe(style: NDArray[np.float64]) -> str:
    """A style in words, strongest first, leaving out what is close to neutral."""
    order = np.argsort(-np.abs(style), kind="stable")
    return ", ".join(WORDS[AXES[axis]][int(style[axis] > 0)] for axis in order if abs(style[axis]) > 0.25)
