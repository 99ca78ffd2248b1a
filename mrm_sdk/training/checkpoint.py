"""The state of a long training on disk, so that an interrupted training resumes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from mrm_sdk.bundle.encoder_spec import digest
from mrm_sdk.errors import ConfigurationError, OutputError

_IDENTITY, _LEARNED = "checkpoint.json", "learned.json"
FORMAT = 1
_UNFINISHED = ".new"


class Checkpoint:
    """A folder with one file of tensors per stage of a training; a file is replaced whole or not at all.

    Args:
        folder: is created; a checkpoint there is resumed.
        identity: everything that the training's result depends on: data, settings, seed.

    Raises:
        ConfigurationError: the folder holds something else, or the checkpoint of another training.
        OutputError: it cannot be written.
    """

    def __init__(self, folder: Path, identity: Any) -> None:
        self.folder = folder
        claim, path = _claim(identity), folder / _IDENTITY
        try:
            folder.mkdir(parents=True, exist_ok=True)
            existing = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None
            if existing is None and any(path.suffix != _UNFINISHED for path in folder.iterdir()):
                raise ConfigurationError(f"{folder} holds files that are no checkpoint; choose another folder.")
            if existing is not None and existing != claim:
                raise ConfigurationError(
                    f"{folder} holds the checkpoint of another training: its data, settings or seed differ. "
                    "Delete it, or choose another folder."
                )
            if existing is None:
                _replace(path, claim.encode())
        except OSError as error:
            raise OutputError(f"Cannot keep a checkpoint in {folder}: {error.strerror}.") from None

    def require_learned(self, identity: Any) -> None:
        """Makes sure that what is kept here was learned from the same comparisons, once those are known.

        An encoder may refuse texts, and others the next time; which ones shows only after the encoding.

        Args:
            identity: of the comparisons that are learned from.

        Raises:
            ConfigurationError: it was learned from others.
            OutputError: the folder cannot be written.
        """
        claim, path = _claim(identity), self.folder / _LEARNED
        try:
            if not path.is_file():
                _replace(path, claim.encode())
            elif path.read_text(encoding="utf-8", errors="replace") != claim:
                raise ConfigurationError(
                    f"{self.folder} holds the checkpoint of a training for which the encoder refused other texts. "
                    "Delete it, or choose another folder."
                )
        except OSError as error:
            raise OutputError(f"Cannot keep a checkpoint in {self.folder}: {error.strerror}.") from None

    def read(self, stage: str) -> dict[str, Tensor] | None:
        """The tensors that were written last for a stage; ``None`` if there are none.

        Raises:
            ConfigurationError: the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self._path(stage)
        if not path.is_file():
            return None
        try:
            return dict(load(path.read_bytes()))
        except (SafetensorError, OSError) as error:
            raise ConfigurationError(f"{path} is damaged ({error}); delete it to redo this part.") from None

    def write(self, stage: str, tensors: dict[str, Tensor]) -> None:
        """Replaces the tensors of a stage.

        Raises:
            OutputError: the disk refused; what was written before is still there.
        """
        from safetensors.torch import save

        try:
            arrays = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            _replace(self._path(stage), save(arrays))
        except OSError as error:
            raise OutputError(f"Cannot keep a checkpoint in {self.folder}: {error.strerror}.") from None

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"


def _claim(identity: Any) -> str:
    return json.dumps({"format": FORMAT, "training": digest(identity)})


def _replace(path: Path, content: bytes) -> None:
    new = path.with_suffix(_UNFINISHED)
    new.write_bytes(content)
    os.replace(new, path)
