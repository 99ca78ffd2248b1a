"""A language model's last hidden state as embedding, as reward models use it.

Needs the extra ``[minilm]``, which brings transformers. For models that fill a GPU and are to run in torch, as in
recipes that encode a data set once; ``mrm encoder export`` makes one that bundles carry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mrm_sdk.bundle.encoder_spec import CHAT_TEMPLATE, TOKENIZER, digest
from mrm_sdk.encoders.tokenization import Chat
from mrm_sdk.errors import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    import torch

DTYPES = ("bfloat16", "float16", "float32")
_SAMPLED = 256


class HiddenStateEncoder:
    """Encodes a conversation as the hidden state of its last token, right before the reward model's score head.

    How a prompt and a response become tokens, :class:`~mrm_sdk.encoders.tokenization.Chat` says.

    Args:
        model: name or folder of a sequence classifier whose backbone is a decoder, with a chat template.
        device: ``cpu``, ``cuda``, or ``auto``: CUDA where there is one.
        dtype: of the weights: ``bfloat16``, ``float16`` or ``float32``.
        max_tokens: of longer conversations the first token and the end are kept, for the answer is at the end.
        batch_size: conversations per forward pass; those of like length share one.

    Raises:
        ConfigurationError: the model cannot be loaded, or an argument is out of range.
        MissingDependencyError: transformers is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        dtype: str = "bfloat16",
        max_tokens: int = 4096,
        batch_size: int = 8,
    ) -> None:
        if dtype not in DTYPES or max_tokens < 2 or batch_size < 1:
            raise ConfigurationError(f"dtype must be one of {', '.join(DTYPES)}, max_tokens 2 or more, batch_size 1.")
        import torch

        from mrm_sdk.encoders.export.tokenizer_files import tokenizer_files

        try:
            from transformers import AutoModelForSequenceClassification, AutoTokenizer
        except ImportError:
            raise MissingDependencyError.of("transformers", "minilm", "Encoding with a language model") from None
        try:
            tokenizer = AutoTokenizer.from_pretrained(model)
            loaded = AutoModelForSequenceClassification.from_pretrained(
                model, dtype=getattr(torch, dtype), use_safetensors=True
            )
            self._device = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
            self.module = loaded.eval().to(self._device)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigurationError(f"{model} cannot be loaded on {device}: {str(error)[:300]}") from None
        files = tokenizer_files(tokenizer, model, chat=True)
        self._chat = Chat(files[TOKENIZER], files[CHAT_TEMPLATE], max_tokens)
        self._backbone = getattr(self.module, self.module.base_model_prefix)
        self._batch_size = batch_size
        self.dimension = int(self.module.config.hidden_size)
        self.fingerprint = digest(["hidden_state", dtype, max_tokens, tokenizer.get_chat_template(), self._weights()])

    def encode(self, texts: Sequence[tuple[str | None, str]]) -> NDArray[np.float32]:
        """Encodes (prompt or ``None``, response) pairs: n of them -> [n, D].

        Raises:
            EncoderError: the chat template refuses a conversation.
        """
        tokens = [row.ids for row in self._chat(texts)]
        out = np.empty((len(texts), self.dimension), np.float32)
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            out[rows] = self._forward([tokens[row] for row in rows])
        return out

    def tokens(self, prompt: str | None, response: str) -> list[int]:
        """Token ids of a conversation, at most ``max_tokens`` of them.

        Raises:
            EncoderError: the chat template refuses the conversation.
        """
        return list(self._chat([(prompt, response)])[0].ids)

    def _forward(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        import torch

        # Padding stands behind the end, where a causal model cannot see it, whatever side the tokenizer prefers.
        ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        with torch.inference_mode():
            hidden: torch.Tensor = self._backbone(
                input_ids=ids.to(self._device), attention_mask=mask.to(self._device), use_cache=False
            ).last_hidden_state
            last = hidden[torch.arange(len(rows)), mask.sum(1) - 1]
        vectors: NDArray[np.float32] = last.float().cpu().numpy()
        return vectors

    def _weights(self) -> str:
        """A hash over a sample of every weight: it tells models apart without reading all of a large one."""
        sampled = hashlib.sha256()
        for name, parameter in self.module.state_dict().items():
            flat = parameter.detach().reshape(-1)
            step = max(1, len(flat) // _SAMPLED)
            sampled.update(f"{name} {tuple(parameter.shape)}".encode())
            sampled.update(flat[::step].float().cpu().numpy().tobytes())
        return sampled.hexdigest()
