"""What a server says no to."""

from __future__ import annotations

from mrm_sdk.errors import EncoderError, MrmError


class RequestRefusedError(EncoderError):
    """A request that is refused for what is in it: a smaller one, or one without some text, may pass.

    Args:
        message: what to do if the request holds one text only, and the server takes others.
        for_all: the error if it takes no text at all.
        by_count: the number of texts is too large, not their length.
    """

    def __init__(self, message: str, for_all: MrmError, *, by_count: bool = False) -> None:
        super().__init__(message)
        self.for_all, self.by_count = for_all, by_count
