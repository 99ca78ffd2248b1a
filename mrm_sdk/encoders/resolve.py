"""Opens the encoder that a bundle was trained with, or checks the host's own against the bundle."""

from __future__ import annotations

from mrm_sdk.bundle.bundle import Bundle
from mrm_sdk.encoders.base import Encoder
from mrm_sdk.encoders.onnx import OnnxEncoder
from mrm_sdk.encoders.precomputed import PrecomputedEncoder
from mrm_sdk.encoders.probe import ProbedEncoder
from mrm_sdk.encoders.remote import RemoteEncoder
from mrm_sdk.encoders.with_handcrafted import WithHandcrafted
from mrm_sdk.errors import BundleMismatchError, ConfigurationError


def open_encoder(encoder: Encoder | None, bundle: Bundle) -> Encoder:
    """The bundle's own encoder, or the host's if it fits.

    Raises:
        BundleMismatchError: the host's encoder is not the one the bundle was trained with.
        ConfigurationError: the host's object is not an encoder, or the settings lack a remote encoder's address.
    """
    spec = bundle.manifest.encoder
    opened = _bundled(bundle) if encoder is None else _checked(encoder, bundle)
    return opened if spec.handcrafted is None else WithHandcrafted(opened, spec.handcrafted)


def _bundled(bundle: Bundle) -> Encoder:
    spec, settings = bundle.manifest.encoder, bundle.settings
    if spec.kind == "onnx":
        return OnnxEncoder.of(bundle)
    if spec.remote is None:
        return PrecomputedEncoder(spec.dimension, spec.fingerprint)
    if settings.encoder_url is None:
        raise ConfigurationError(
            f"This bundle's texts are encoded by a server that offers {spec.remote.model} ({spec.remote.protocol}): "
            "set its address with MRM_ENCODER_URL or Settings(encoder_url=…), or pass encoder=RemoteEncoder(…)."
        )
    return RemoteEncoder(
        settings.encoder_url,
        protocol=spec.remote.protocol,
        model=spec.remote.model,
        template=spec.remote.template,
        dimension=spec.own_dimension,
        shorten=spec.remote.shorten,
        api_key=settings.encoder_api_key,
        api_key_header=settings.encoder_api_key_header,
        cache=settings.encoder_cache,
        probe=None if spec.probe is None else spec.probe.numbers(),
    )


def _checked(encoder: Encoder, bundle: Bundle) -> Encoder:
    if not all(hasattr(encoder, name) for name in ("dimension", "fingerprint", "encode")):
        raise ConfigurationError(
            f"An encoder has dimension, fingerprint and encode, which {type(encoder).__name__} lacks; "
            "see mrm_sdk.encoders.Encoder."
        )
    spec = bundle.manifest.encoder
    # A bundle trained on embeddings alone does not know which encoder made them: it relies on the host.
    if spec.kind != "precomputed" and encoder.fingerprint != spec.model_fingerprint:
        raise BundleMismatchError(
            "The encoder is not the one that the bundle was trained with: its fingerprint differs. "
            "Leave encoder=None to use the bundle's own, or train a bundle with this encoder."
        )
    if encoder.dimension != spec.own_dimension:
        raise BundleMismatchError(
            f"The encoder gives {encoder.dimension} numbers, the bundle was trained on {spec.own_dimension}."
        )
    # An OnnxEncoder that was opened from a bundle checks its own probe.
    return encoder if spec.probe is None or isinstance(encoder, OnnxEncoder) else ProbedEncoder(encoder, spec.probe)
