"""The manifest of a bundle: its contents, and the two hashes that identify it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from mrm_sdk.bundle.encoder_spec import ENCODER, EncoderSpec, digest
from mrm_sdk.core.inner_loop import SERVING_STEPS, SERVING_TOLERANCE
from mrm_sdk.errors import BundleDamagedError, BundleMismatchError
from mrm_sdk.schemas.frozen import Frozen, Utc

FORMAT: Final = 2
MANIFEST: Final = "manifest.json"
BASE_REWARDS: Final = "base_rewards.onnx"
BASE_REWARDS_FLOAT16: Final = "base_rewards_float16.onnx"
BASE_REWARDS_BFLOAT16: Final = "base_rewards_bfloat16.onnx"
PRIOR: Final = "prior.safetensors"

FileName = Literal[
    "base_rewards.onnx",
    "base_rewards_float16.onnx",
    "base_rewards_bfloat16.onnx",
    "prior.safetensors",
    "encoder.onnx",
    "encoder.onnx.data",
    "tokenizer.json",
    "chat_template.json",
]


class Adaptation(Frozen):
    """The inner loop that the bundle was trained for.

    Args:
        method: ``newton`` (default) or ``gradient`` (the published one).
        steps: Newton: most steps when serving; gradient: Adam steps.
        tolerance: Newton: largest change of a weight that counts as converged.
        learning_rate: gradient: of Adam.
        half_life: seconds of age at which a judgement counts half, unless a client's settings say otherwise; ``None``:
            all count in full, however old.
    """

    method: Literal["newton", "gradient"] = "newton"
    steps: int = Field(default=SERVING_STEPS, ge=1, le=1000)
    tolerance: float = Field(default=SERVING_TOLERANCE, gt=0)
    learning_rate: float = Field(default=0.005, gt=0)
    half_life: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class Manifest(Frozen):
    """What ``manifest.json`` holds.

    ``features`` identifies encoder and base rewards: stored feature differences belong to it. ``fingerprint``
    identifies all of the bundle: stored weights belong to it. Neither depends on when or where it was made.
    """

    format: Literal[2] = FORMAT
    name: str
    created_at: Utc = Field(default_factory=lambda: datetime.now(UTC))
    sdk_version: str
    licence: str
    base_functions: int = Field(gt=0)
    dimension: int = Field(gt=0)
    encoder: EncoderSpec
    adaptation: Adaptation
    training: dict[str, Any]
    metrics: dict[str, Any]
    files: dict[FileName, str]
    features: str = ""
    fingerprint: str = ""

    @property
    def fused(self) -> bool:
        """Whether base rewards are joined to the encoder's graph."""
        return self.encoder.kind == "onnx" and self.files.get(ENCODER) != self.encoder.graph

    def identified(self) -> Manifest:
        """Returns this manifest with ``features`` and ``fingerprint`` computed from its contents."""
        shape = [self.format, self.base_functions, self.dimension]
        graphs = [self.files.get(BASE_REWARDS), self.files.get(ENCODER)]
        features = digest([shape, self.encoder.fingerprint, graphs])
        described = [self.files, self.encoder.described]
        fingerprint = digest([features, described, self.adaptation.model_dump(exclude_none=True)])
        return self.model_copy(update={"features": features, "fingerprint": fingerprint})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads and checks a bundle's manifest.

        Raises:
            BundleMismatchError: there is none, or it is of another format.
            BundleDamagedError: it does not parse, or its hashes do not fit its contents.
        """
        try:
            raw = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleMismatchError(f"{folder} is not a bundle: it has no {MANIFEST}. Make one: mrm train") from None
        except NotADirectoryError:
            raise BundleMismatchError(f"{folder} is a file, not a bundle's folder. Make one: mrm train") from None
        except OSError as error:
            raise BundleMismatchError(f"{folder / MANIFEST} cannot be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise BundleDamagedError(f"{folder / MANIFEST} is not JSON. Copy or train the bundle again.") from None
        version = raw.get("format") if isinstance(raw, dict) else None
        if version != FORMAT:
            raise BundleMismatchError(
                f"{folder} has bundle format {version!r}, this package reads {FORMAT}. "
                "Train it again, or install the version of mrm-sdk that made it."
            )
        try:
            manifest = cls.model_validate(raw)
        except ValidationError as error:
            fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors())
            raise BundleDamagedError(f"{folder / MANIFEST} has missing or invalid fields: {fields}") from None
        spec = manifest.encoder
        own = spec.kind != "onnx" or spec == spec.of_files(manifest.files)
        if not own or manifest != manifest.identified():
            raise BundleDamagedError(f"{folder / MANIFEST} was changed after training: its fingerprint does not fit.")
        return manifest
