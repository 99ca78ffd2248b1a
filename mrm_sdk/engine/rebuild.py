"""From one bundle to the next: computes the new bundle's features of stored feedback and adapts all users."""

from __future__ import annotations

from mrm_sdk.engine.adaptation import Personalizer
from mrm_sdk.engine.features import Featurizer, textless_error
from mrm_sdk.errors import ContentionError, DatabaseError, MrmError
from mrm_sdk.progress import Progress
from mrm_sdk.schemas.results import Rebuilt, RefusedEvent


def rebuild(personalizer: Personalizer, progress: Progress) -> Rebuilt:
    """Computes what the bundle lacks of all stored feedback, a chunk per transaction, then adapts every user.

    What is stored already is not computed again, so an interrupted rebuild resumes where it stopped. A text that the
    encoder refuses costs its users only the events that hold it.

    An error at the end tells in ``refused`` which events these are.

    Raises:
        BundleMismatchError: at the end, if neither text nor embedding of some feedback was kept.
        MrmError: at the end, the error of the first user who could not be adapted.
        EncoderError: the encoder failed; what was stored before stays.
        DatabaseError: the database refused; what was stored before stays.
    """
    featurizer = personalizer.featurizer
    backfill, refused = featurizer.store.backfill, dict[bytes, str]()
    items, comparisons, users = backfill.counts(featurizer.features_hash)
    encoded, lacks_text = _encode_items(featurizer, items, progress, refused)
    compared = _compute_differences(featurizer, comparisons, progress)
    adapted, failure = _adapt_users(personalizer, users, progress, refused)
    events = {event: reason for key, reason in refused.items() for event in backfill.events_of(key)}
    told = tuple(RefusedEvent(*event, reason) for event, reason in events.items())
    if lacks_text:
        failure = textless_error("this tenant's")
    if failure is not None:
        failure.refused = told
        raise failure
    return Rebuilt(items=encoded, comparisons=compared, users=adapted, refused=told)


def can_serve(personalizer: Personalizer, user_id: str) -> bool:
    """Whether a user was adapted under this bundle before, or can be without encoding anything.

    If texts are not kept, only the second counts: feedback recorded since under another bundle cannot be encoded.
    """
    featurizer = personalizer.featurizer
    _, stored = featurizer.store.weights(user_id, personalizer.fingerprint)
    adapted = stored is not None and featurizer.settings.store_text
    return adapted or not featurizer.store.backfill.lacks_features(user_id, featurizer.features_hash)


def is_complete(featurizer: Featurizer) -> bool:
    """Whether every item ever recorded has base rewards under this bundle."""
    return not featurizer.store.backfill.items(featurizer.features_hash, after=b"", limit=1)


def require_text(featurizer: Featurizer) -> None:
    """Makes sure that missing features can be computed.

    Raises:
        BundleMismatchError: they cannot: neither text nor embedding of some feedback was kept.
    """
    if featurizer.store.backfill.is_textless(featurizer.features_hash):
        raise textless_error("this tenant's")


def _encode_items(
    featurizer: Featurizer, total: int, progress: Progress, refused: dict[bytes, str]
) -> tuple[int, bool]:
    """Returns how many items were encoded, and whether some have lost their text."""
    done, lacks_text, last_key = 0, False, b""
    limit = featurizer.settings.chunk_size
    while items := featurizer.store.backfill.items(featurizer.features_hash, after=last_key, limit=limit):
        last_key = max(items)
        encodable = [item for item in items.values() if item.text is not None or item.embedding is not None]
        lacks_text |= len(encodable) < len(items)
        done += featurizer.store_base_rewards(encodable, refused)
        progress("encoding", min(done, total), total)
    return done, lacks_text


def _compute_differences(featurizer: Featurizer, total: int, progress: Progress) -> int:
    """Returns of how many comparisons ``z`` was stored."""
    store, features_hash, limit = featurizer.store, featurizer.features_hash, featurizer.settings.chunk_size
    done, last_id = 0, ""
    while rows := store.backfill.comparisons(features_hash, after=last_id, limit=limit):
        last_id = rows[-1][0]
        rewards = store.base_rewards(features_hash, {item for _, *sides in rows for item in sides})
        z = {
            event_id: rewards[chosen] - rewards[rejected]
            for event_id, chosen, rejected in rows
            if chosen in rewards and rejected in rewards
        }
        store.add_features(features_hash, z, {})
        done += len(z)
        progress("comparing", min(done, total), total)
    return done


def _adapt_users(
    personalizer: Personalizer, total: int, progress: Progress, refused: dict[bytes, str]
) -> tuple[int, MrmError | None]:
    """Returns how many users are up to date, and the first error; one user's error does not stop the next user."""
    store, limit = personalizer.featurizer.store, personalizer.featurizer.settings.chunk_size
    done, last_user = 0, ""
    failure: MrmError | None = None
    while users := store.backfill.users(after=last_user, limit=limit):
        last_user = users[-1]
        for user_id in users:
            try:
                personalizer.personalize(user_id, refused)
                done += 1
            except MrmError as error:
                if isinstance(error, DatabaseError) and not isinstance(error, ContentionError):
                    raise
                failure = failure or error
        progress("adapting", min(done, total), total)
    return done, failure
