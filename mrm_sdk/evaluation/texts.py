"""The two kinds of texts that a fit can be judged by; loads nothing, so that commands can check an option with it."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from mrm_sdk.errors import ConfigurationError

Corner: TypeAlias = Literal["known", "new"]
CORNERS: Final[tuple[Corner, ...]] = ("known", "new")
Texts: TypeAlias = Literal["auto", "known", "new"]
"""Which texts to judge by: ``auto`` takes both kinds, each by itself, where the data has both."""
_TEXTS: Final[tuple[Texts, ...]] = ("auto", *CORNERS)


def as_texts(texts: str) -> Texts:
    """Checks an argument.

    Raises:
        ConfigurationError: it is none of :data:`Texts`.
    """
    for known in _TEXTS:
        if texts == known:
            return known
    raise ConfigurationError(f"Texts must be one of {', '.join(_TEXTS)}; not {texts!r}.")
