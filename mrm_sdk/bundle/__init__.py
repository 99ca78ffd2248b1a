"""What meta-training ships: ONNX graphs, a prior and a manifest, verified on loading."""

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.bundle.manifest import Manifest

__all__ = ["Bundle", "Manifest"]
