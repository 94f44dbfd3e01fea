"""A stage before the image UNet's: the text encoder learns to tell at every token which words it has read.

Stable Diffusion's encoder comes from CLIP and is frozen. One that learns with the UNet from stills alone forgets what
no still shows: "left" and "right" end as one vector, and a motion module has nothing to read a direction from.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.clip_tokenizer import ClipTokenizer
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.training.text import TextConditioner
from motion.training.vocabulary import make_vocabulary

FILE_NAME = "text.safetensors"


class TextTask:
    """A linear layer on each token's vector says which words, and which pairs of neighbours, came up to this token.

    Pairs keep apart what words alone don't: a red circle on blue from a blue circle on red. The loss is the binary
    cross-entropy, summed over words and pairs. The layer is thrown away; the encoder is what the stage makes.

    Args:
        config: shape of the encoder.
        words: its vocabulary.
        captions: the data set.
        batch_size: captions of one part of a batch.
        seed: of the first weights.
    """

    def __init__(
        self,
        config: ClipTextEncoderConfig,
        words: tuple[str, ...],
        captions: Sequence[str],
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        conditioner = TextConditioner(ClipTokenizer(make_vocabulary(words)), new_encoder(config, seed))
        self.encoder = conditioner.encoder
        self._tokens = conditioner.tokens(sorted(set(captions)))
        self._labels = _Labels(self._tokens, conditioner.tokenizer.end_id)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._reader = nn.Linear(config.hidden_size, len(self._labels))
        self._batch_size = batch_size

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """The encoder's and the reading layer's."""
        parts: tuple[tuple[str, nn.Module], ...] = (("encoder", self.encoder), ("reader", self._reader))
        return {f"{part}.{key}": value for part, network in parts for key, value in network.named_parameters()}

    def applied(self) -> AbstractContextManager[Any]:
        """Nothing."""
        return nullcontext()

    def loss(self, random: StepRandom) -> Tensor:
        """Cross-entropy of a batch's tokens."""
        chosen = torch.from_numpy(random.choices.integers(len(self._tokens), size=self._batch_size))
        said = self._reader(self.encoder(self._tokens[chosen]))
        labels = self._labels.of(self._tokens[chosen])
        return functional.binary_cross_entropy_with_logits(said, labels, reduction="none").sum(-1).mean()

    @torch.no_grad()
    def share_of_captions_read(self) -> float:
        """Part of the captions whose last token tells all their words and pairs, and no others."""
        right = 0
        for tokens in torch.split(self._tokens, 256):
            said = self._reader(self.encoder(tokens)[:, -1]) > 0
            right += int((said == self._labels.of(tokens)[:, -1].bool()).all(-1).sum())
        return right / len(self._tokens)

    def sample_sheet(self) -> Image.Image | None:
        """None: there is nothing to see."""
        return None

    @torch.no_grad()
    def export(self, folder: RunFolder) -> list[Path]:
        """Write the encoder."""
        path = folder.path / FILE_NAME
        state = {key: value.detach().contiguous() for key, value in self.encoder.state_dict().items()}
        folder.write(path, lambda temporary: save_file(state, temporary))
        return [path]

    def describe(self) -> dict[str, Any]:
        """Shape and data set."""
        return {
            "stage": "text",
            "config": repr(self.encoder.config),
            "captions": len(self._tokens),
            "labels": len(self._labels),
            "batch_size": self._batch_size,
        }


class _Labels:
    """Words and pairs of neighbouring words that occur in `tokens`, int64 `b n`."""

    def __init__(self, tokens: Tensor, end_id: int) -> None:
        self._end_id = end_id
        said = [row[1:] for row in tokens.tolist()]
        words = sorted({(token,) for row in said for token in row if token != end_id})
        pairs = sorted({pair for row in said for pair in itertools.pairwise(row) if end_id not in pair})
        self._places = {label: place for place, label in enumerate([*words, *pairs])}

    def __len__(self) -> int:
        return len(self._places)

    def of(self, tokens: Tensor) -> Tensor:
        """Which of them came up to each token: 0 or 1, float32 `b n labels`."""
        found = torch.zeros(*tokens.shape, len(self))
        for row, ids in enumerate(tokens.tolist()):
            for place in range(1, len(ids)):
                for label in ((ids[place],), (ids[place - 1], ids[place])):
                    if label in self._places:
                        found[row, place, self._places[label]] = 1.0
        return found.cummax(dim=1).values


def new_encoder(config: ClipTextEncoderConfig, seed: int) -> ClipTextEncoder:
    """A text encoder with seeded first weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ClipTextEncoder(config)


def load_encoder(path: Path, config: ClipTextEncoderConfig) -> ClipTextEncoder:
    """The encoder that the stage has written."""
    encoder = ClipTextEncoder(config)
    encoder.load_state_dict(load_file(path))
    return encoder
