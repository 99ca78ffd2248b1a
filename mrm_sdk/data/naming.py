"""What the columns of a table are called: by our names, alike but for case, spaces and signs, or as the caller says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrm_sdk.data.problems import did_you_mean, listed
from mrm_sdk.errors import ConfigurationError, DatasetError

_JUDGED = {"user_id", "chosen", "rejected", "ranking", "rating", "thumb"}
_ABOUT = {"phase", "group", "tie", "strength", "event_id", "created_at"}
# Our names of the columns of each kind of table.
TEXTS = frozenset({*_JUDGED, *_ABOUT, "prompt", "response"})
BY_ID = frozenset({*_JUDGED, *_ABOUT, "item_id"})
ITEMS = frozenset({"item_id", "prompt", "response", "embedding"})
TRL = frozenset({*TEXTS, "completion", "label", "margin"})


class Naming:
    """The names that a caller gives to the columns of a data set, which may be several tables.

    Args:
        stated: our name -> the table's.

    Raises:
        ConfigurationError: there is no such name of ours, or one column would be two.
    """

    def __init__(self, stated: Mapping[str, str] | None = None) -> None:
        self.stated = dict(stated or {})
        self._seen: dict[str, None] = {}
        self._used: set[str] = set()
        for ours, theirs in self.stated.items():
            if ours not in TRL | ITEMS:
                raise ConfigurationError(
                    f"Data sets have no column {ours!r}. {did_you_mean(ours, sorted(TRL | ITEMS))}"
                )
            if list(self.stated.values()).count(theirs) > 1:
                raise ConfigurationError(f"Column {theirs!r} is named twice; it can be one of our columns only.")

    def of(self, known: frozenset[str], *, rated: bool = False, alone: bool = False) -> TableNaming:
        """The naming of one table.

        Args:
            known: our names of the columns that it may have.
            rated: it is a table of ratings.
            alone: every column that was stated must be in it.
        """
        return TableNaming(self, known, rated, alone)

    def check_used(self, path: str | Path) -> None:
        """Checks that every column that was stated was in one of the tables, and read.

        Raises:
            ConfigurationError: one was not.
        """
        for ours, theirs in self.stated.items():
            if theirs not in self._seen and self._seen:
                raise _not_there(path, ours, theirs, self._seen)
            if ours not in self._used and self._seen:
                raise ConfigurationError(f"Nothing in {path} can be {ours}, which {theirs[:40]!r} is to be.")

    def columns(self, where: str, names: Sequence[str], known: frozenset[str]) -> dict[str, str]:
        """The columns of one table that are read: its names -> ours.

        Raises:
            DatasetError: two of them could be the same one of ours.
        """
        self._seen |= dict.fromkeys(names)
        columns = {theirs: ours for ours, theirs in self.stated.items() if ours in known and theirs in names}
        self._used |= set(columns.values())
        for ours in sorted(known - set(columns.values())):
            left = [name for name in names if name not in columns]
            alike = [ours] if ours in left else [name for name in left if _plain(name) == _plain(ours)]
            if len(alike) > 1:
                both = " and ".join(repr(name[:40]) for name in alike)
                raise DatasetError(f"{where}: {both} could each be {ours}. Say which: --column {ours}={alike[0]!r}")
            if alike:
                columns[alike[0]] = ours
        return columns


@dataclass(frozen=True)
class TableNaming:
    """What the columns of one table are called; see :meth:`Naming.of`."""

    _naming: Naming
    _known: frozenset[str]
    _rated: bool
    _alone: bool

    def of_rows(self, where: str, names: Sequence[str]) -> dict[str, str]:
        """Columns that are read, of a table whose rows may each have others: its names -> ours.

        Args:
            where: the names are, for messages.
            names: of all columns.

        Raises:
            ConfigurationError: a column that was stated is not there.
            DatasetError: two names could mean the same column of ours.
        """
        columns = self._naming.columns(where, names, self._known)
        if self._alone:
            self._naming.check_used(where)
        return columns

    def of_header(self, where: str, names: Sequence[str]) -> dict[str, str]:
        """Columns that are read, of a table whose rows all have the same: its names -> ours.

        Args:
            where: the names are, for messages.
            names: of all columns.

        Raises:
            ConfigurationError: see :meth:`of_rows`.
            DatasetError: see there; or columns that make comparisons or ratings are missing.
        """
        columns = self.of_rows(where, names)
        missing = self._missing(set(columns.values()))
        stated = self._naming.stated
        for ours in (name for part in missing for name in part.split(" or ") if name in stated):
            raise _not_there(where, ours, stated[ours], names)
        if missing:
            joined = len(names) == 1 or any(sign in name for name in names for sign in ";\t|")
            ends = "The header must be parted by commas, semicolons, tabs or |, all alike. " if joined else ""
            if set(missing) <= {"prompt", "response"}:
                ends = (
                    "If this table names items by id, there is no items.jsonl beside it; if there are no prompts, add "
                    "an empty column prompt. "
                )
            raise DatasetError(
                f"{where}: no column {', '.join(missing)}; found: {listed(names)}. {ends}"
                f"If it has another name, say so: --column {missing[0].split()[0]}=NAME"
            )
        return columns

    def _missing(self, have: set[str]) -> list[str]:
        if self._known == TRL:
            return []  # its reader knows what makes a record
        if self._known == ITEMS:
            return sorted({"item_id"} - have)
        item = "response" if self._known == TEXTS else "item_id"
        if self._rated or (have & {"rating", "thumb", item} and not have & {"chosen", "rejected", "ranking"}):
            missing = [] if item in have else [item]
            missing += [] if have & {"rating", "thumb"} else ["rating or thumb"]
        else:
            missing = [] if "ranking" in have else sorted({"chosen", "rejected"} - have)
        texts = {"prompt"} if self._known == TEXTS else set()
        return [*({"user_id"} - have), *(texts - have), *missing]


def _not_there(path: str | Path, ours: str, theirs: str, names: Iterable[str]) -> ConfigurationError:
    return ConfigurationError(f"{path} has no column {theirs[:40]!r} for {ours}. {did_you_mean(theirs, names)}")


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-.]+", "", name).casefold()
