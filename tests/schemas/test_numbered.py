"""An error about one of many keeps its type and what it holds."""

from __future__ import annotations

import pytest

from mrm_sdk.errors import EncoderError, MrmError, TextRefusedError
from mrm_sdk.schemas.requests import numbered


class OutOfQuotaError(EncoderError):
    """A host's own, which is made of something else than a message."""

    def __init__(self, *, status: int, seconds: float) -> None:
        super().__init__(f"status {status}")
        self.status, self.seconds = status, seconds


def in_request(number: int, error: MrmError) -> MrmError:
    with pytest.raises(MrmError) as caught, numbered("Request", number):
        raise error
    return caught.value


def test_a_hosts_own_error() -> None:
    error = OutOfQuotaError(status=429, seconds=1.5)
    told = in_request(7, error)
    assert isinstance(told, OutOfQuotaError)
    assert (str(told), told.status, told.seconds) == ("Request 7: status 429", 429, 1.5)
    # One that is raised again and again is not named after all requests in turn.
    assert (str(in_request(8, error)), str(error)) == ("Request 8: status 429", "status 429")


def test_reasons_stay() -> None:
    told = in_request(0, TextRefusedError.of({2: "too long"}, {b"key": [1.0]}))
    assert type(told) is TextRefusedError
    assert (told.reasons, told.vectors) == ({2: "too long"}, {b"key": [1.0]})
    assert str(told) == "Request 0: Text 2 of this call is refused: too long"
