"""The whole tree of errors: one class per thing a caller can do something about.

::

    MrmError
    ├── InvalidInputError (ValueError)   a comparison, response or argument is wrong: fix the value
    │   ├── EmbeddingError               a vector is of the wrong size, or not finite
    │   └── DatasetError                 a file's content is wrong: the message names file and line
    ├── NotFoundError                    a path that was named does not exist
    ├── OutputError                      a result cannot be written where it was asked for
    ├── ConflictError                    an event id came again with other content
    ├── UserForgottenError               an event from before its user was forgotten
    ├── EventExpiredError                an event from before what the tenant keeps
    ├── ConfigurationError               settings or arguments contradict each other
    │   └── MissingDependencyError       an optional package is absent: the message names the extra
    ├── BundleError                      a bundle cannot be used
    │   ├── BundleDamagedError           its bytes are not the bytes that were shipped
    │   └── BundleMismatchError          it does not fit: format, encoder, or vectors of another bundle
    ├── EncoderError                     text could not be turned into embeddings
    │   └── TextRefusedError             these texts are not taken, whatever is tried; others are
    ├── ProviderError                    the execution provider that was asked for did not start, or gave up
    │   └── OutOfMemoryError             a graph's batch does not fit into the device's memory, however small
    ├── DatabaseError                    the database refused
    │   ├── DatabaseUnavailableError     it cannot be reached, opened or written
    │   ├── ContentionError              other processes keep changing the same rows: try again
    │   ├── SchemaOutdatedError          its tables are older than this code: upgrade it
    │   └── SchemaAheadError             its tables are newer than this code: upgrade the package
    ├── TrainingError                    meta-training cannot give a usable bundle
    └── ClientClosedError                the client was closed

Every message says what is wrong and what to do. ``exit_code`` is what a command returns: 2 where the call was
wrong, 1 where the work failed.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any


class MrmError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        refused: of an error that ends a rebuild: event, user and reason of each event that waits for a text which the
            encoder does not take, as in :attr:`mrm_sdk.schemas.results.Rebuilt.refused`.
    """

    exit_code: ClassVar[int] = 1
    refused: tuple[tuple[str, str, str], ...] = ()


class InvalidInputError(MrmError, ValueError):
    """A value handed in is wrong; nothing was stored."""


class EmbeddingError(InvalidInputError):
    """An embedding has the wrong number of dimensions or is not finite."""


class DatasetError(InvalidInputError):
    """A data set's content is wrong; the message names the file and, where there is one, the line."""


class NotFoundError(MrmError):
    """A path that was named does not exist."""

    exit_code = 2


class OutputError(MrmError):
    """A result cannot be written where it was asked for."""

    exit_code = 2


class ConflictError(MrmError):
    """The same ``event_id`` was recorded before with other content."""


class UserForgottenError(MrmError):
    """The event is older than its user's deletion, and stays deleted."""


class EventExpiredError(MrmError):
    """The event is older than the tenant keeps feedback, and stays deleted."""


class ConfigurationError(MrmError):
    """Settings or arguments are invalid or contradict each other."""

    exit_code = 2


class MissingDependencyError(ConfigurationError):
    """An optional package is not installed; the message names the extra that brings it."""

    @classmethod
    def of(cls, package: str, extra: str, purpose: str) -> MissingDependencyError:
        """Builds the error for ``package``, which ``purpose`` needs and ``extra`` brings."""
        return cls(f"{purpose} needs {package}, which is not installed. Run: pip install 'mrm-sdk[{extra}]'")


class BundleError(MrmError):
    """A bundle cannot be used."""


class BundleDamagedError(BundleError):
    """A bundle's bytes are not those its manifest names."""


class BundleMismatchError(BundleError):
    """A bundle is of another format or encoder, or vectors of two bundles would meet."""


class EncoderError(MrmError):
    """Text could not be turned into embeddings."""


class TextRefusedError(EncoderError):
    """Some texts of a call are not taken, however often they come; the call's other texts would be.

    Encoders raise it so that one text (too long, not valid Unicode) never holds up the others.

    Args:
        message: what is wrong.
        reasons: why, by the index in the call of each refused text. Without it, which ones they are is found by trying.
        vectors: of other texts of the call, [D] each, so that they need not be encoded again. They are found by
            :func:`mrm_sdk.encoders.text_key.text_key`, which tells encoder and text: an encoder that hands on
            what another one raised, for other texts or in another order, gives no text a wrong vector.
    """

    def __init__(
        self, message: str, reasons: Mapping[int, str] | None = None, vectors: Mapping[bytes, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.reasons, self.vectors = dict(reasons or {}), dict(vectors or {})

    @classmethod
    def of(cls, reasons: Mapping[int, str], vectors: Mapping[bytes, Any] | None = None) -> TextRefusedError:
        """Builds the error of a call in which at least one text is refused."""
        first = min(reasons)
        more = f" (and {len(reasons) - 1} more of this call)" if len(reasons) > 1 else ""
        return cls(f"Text {first} of this call is refused: {reasons[first]}{more}", reasons, vectors)


class ProviderError(MrmError):
    """The execution provider that was asked for did not start."""


class OutOfMemoryError(ProviderError):
    """Not even a single row fits into the memory of the device that runs a graph."""


class DatabaseError(MrmError):
    """The database refused; the transaction was rolled back."""


class DatabaseUnavailableError(DatabaseError):
    """The database cannot be reached, opened or written."""


class ContentionError(DatabaseError):
    """Another transaction got there first; the same work may succeed if it is done again."""


class SchemaOutdatedError(DatabaseError):
    """The database's tables are older than this code."""


class SchemaAheadError(DatabaseError):
    """The database's tables are newer than this code."""


class TrainingError(MrmError):
    """Meta-training cannot give a usable bundle from this data."""


class ClientClosedError(MrmError):
    """The client was closed."""


def no_such(name: str, known: Iterable[str]) -> str:
    """The words for a name that does not exist, with the one that was probably meant."""
    close = get_close_matches(name, list(known), 1)
    return f"there is no {name[:40]}{f'; did you mean {close[0]}?' if close else ''}"
