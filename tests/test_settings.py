"""Settings: where they come from, and what is said about wrong ones."""

from __future__ import annotations

import pytest

from mrm_sdk.errors import ConfigurationError
from mrm_sdk.settings import Settings


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pool_sise": 3}, r"there is no pool_sise; did you mean pool_size\?$"),
        ({"nonsense": 3}, r"there is no nonsense$"),
        ({"pool_size": -1}, r"pool_size \(or MRM_POOL_SIZE\): .*greater than or equal to 0"),
        ({"providers": "abacus"}, r"providers \(or MRM_PROVIDERS\): .*'auto'"),
        ({"threads": -1, "nonsense": 3}, r"threads .*; there is no nonsense"),
    ],
)
def test_wrong_ones(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Settings(**values)  # type: ignore[arg-type]


def test_wrong_ones_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRM_POOL_SIZE", "many")
    with pytest.raises(ConfigurationError, match="MRM_POOL_SIZE"):
        Settings()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_an_empty_variable_is_as_if_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Container tools write ``MRM_POOL_SIZE=`` for a variable that no one has set."""
    unset = Settings()
    monkeypatch.setenv(f"MRM_{name.upper()}", "")
    assert Settings() == unset


def test_a_serverless_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(settings: Settings) -> tuple[bool, int, int]:
        return settings.auto_migrate, settings.pool_size, settings.threads

    assert chosen(Settings.serverless()) == (False, 0, 1)
    assert chosen(Settings.serverless(threads=2, auto_migrate=True)) == (True, 0, 2)
    assert Settings.serverless(store_text=False).store_text is False
    monkeypatch.setenv("MRM_POOL_SIZE", "1")
    assert chosen(Settings.serverless()) == (False, 1, 1)
    assert chosen(Settings.serverless(pool_size=0)) == (False, 0, 1)
    with pytest.raises(ConfigurationError):
        Settings.serverless(threads=-1)
