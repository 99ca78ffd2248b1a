"""A host application in small: a new user states a few preferences, and the ranking follows.

Run it after ``make demo``::

    python examples/quickstart.py mrm-demo/bundle
"""

import sys

from mrm_sdk import Client, Comparison

PROMPT = "How do I get a red wine stain out of a cotton shirt?"
ANSWERS = [
    "Cold water, dish soap and white vinegar, then a warm wash. Works nearly every time.",
    "1. Blot, do not rub.\n2. Rinse cold from the back.\n3. Soak 30 min in oxygen bleach, 40 °C.\n4. Wash; air-dry.",
    "Oh no, and on a favourite shirt, I guess! Don't worry: you may well save it. Perhaps try some cold water first.",
    "Anthocyanins are pH-sensitive chromophores; oxidise them with sodium percarbonate, 10 g/L, 40 °C, 30 min.",
]
# What the user chose on other prompts: brisk, technical answers over kind and careful ones.
FEEDBACK = [
    (
        "How long should I rest a steak?",
        "5 minutes for 2.5 cm: carry-over adds 3–5 °C and juices redistribute.",
        "However long feels right to you! Maybe a few minutes, but please don't worry too much about it.",
    ),
    (
        "Why is my bread dense?",
        "Underproofed or under-hydrated. Go to 72 % hydration, proof to 1.8× volume at 26 °C.",
        "That happens to all of us. You might try giving it a little more time somewhere warm and cosy.",
    ),
    (
        "Is my bike chain worn?",
        "Measure 12 links: replace at 0.5 % elongation (306.3 mm), else the cassette wears with it.",
        "It could be, though it's hard to say! A friendly local shop would surely have a look for you.",
    ),
]


def main(bundle: str) -> None:
    with Client("sqlite://", bundle=bundle) as client:
        print("Before:", client.rank("ada", ANSWERS, prompt=PROMPT)[0].response, sep="\n  ")
        for prompt, chosen, rejected in FEEDBACK:
            client.record(Comparison(user_id="ada", prompt=prompt, chosen=chosen, rejected=rejected))
        print("After three comparisons:", client.rank("ada", ANSWERS, prompt=PROMPT)[0].response, sep="\n  ")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "mrm-demo/bundle")
