"""TransUNet (Chen et al., 2021): a ViT on the 1/16 map of a ResNet, and a decoder with skip connections.

The tensors are named as in the official code (github.com/Beckschen/TransUNet, "R50-ViT-B_16" with three
skips), whose trained state dicts load.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from seg_export.families.semantic.transunet_stem import ResNetV2
from seg_export.tracing.gelu import gelu
from seg_runtime.errors import BadInputError

__all__ = ["PATCH", "VARIANTS", "TransUNet", "transunet_arguments"]

PATCH = 16
"""Pixels of the image per token, either way."""

_HEAD_SIZE = 64
"""Channels of one head of attention, as in every ViT; a state dict does not tell their number."""

_DROPOUT = 0.1

VARIANTS: dict[str, dict[str, Any]] = {
    "r50_vit_b16": {},
    "small": {
        "width": 16,
        "units": [2, 2, 3],
        "hidden": 192,
        "layers": 4,
        "mlp": 384,
        "head_channels": 64,
        "decoder_channels": [48, 32, 16, 8],
    },
}
"""Arguments of `TransUNet`: the paper's, and a width that trains from scratch on a small data set."""


class _Attention(nn.Module):
    """Multi-head self-attention over (N, T, C) tokens."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (self._heads(layer(x)) for layer in (self.query, self.key, self.value))
        scores = query @ key.transpose(-1, -2) / math.sqrt(_HEAD_SIZE)
        mixed = torch.softmax(scores, dim=-1) @ value
        out: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, hidden = x.shape
        return x.view(batch, tokens, hidden // _HEAD_SIZE, _HEAD_SIZE).transpose(1, 2)


class _Mlp(nn.Module):
    def __init__(self, hidden: int, mlp: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, mlp)
        self.fc2 = nn.Linear(mlp, hidden)
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.dropout(self.fc2(self.dropout(gelu(self.fc1(x)))))
        return out


class _Layer(nn.Module):
    """A pre-norm transformer layer over (N, T, C) tokens."""

    def __init__(self, hidden: int, mlp: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden, eps=1e-6)
        self.ffn_norm = nn.LayerNorm(hidden, eps=1e-6)
        self.ffn = _Mlp(hidden, mlp)
        self.attn = _Attention(hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.attention_norm(x))
        out: torch.Tensor = x + self.ffn(self.ffn_norm(x))
        return out


class _Embeddings(nn.Module):
    """The stem's 1/16 map as tokens with learned positions, one set per image size."""

    def __init__(self, tokens: int, width: int, units: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.hybrid_model = ResNetV2(width, units)
        self.patch_embeddings = nn.Conv2d(PATCH * width, hidden, kernel_size=1)
        self.position_embeddings = nn.Parameter(torch.zeros(1, tokens, hidden))
        self.dropout = nn.Dropout(_DROPOUT)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        x, skips = self.hybrid_model(x)
        tokens = self.patch_embeddings(x).flatten(2).transpose(1, 2)
        return self.dropout(tokens + self.position_embeddings), skips


class _Encoder(nn.Module):
    def __init__(self, layers: int, hidden: int, mlp: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(hidden, mlp) for _ in range(layers))
        self.encoder_norm = nn.LayerNorm(hidden, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layer:
            x = layer(x)
        out: torch.Tensor = self.encoder_norm(x)
        return out


class _Transformer(nn.Module):
    def __init__(self, embeddings: _Embeddings, encoder: _Encoder) -> None:
        super().__init__()
        self.embeddings = embeddings
        self.encoder = encoder

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        tokens, skips = self.embeddings(x)
        return self.encoder(tokens), skips


def _conv_bn_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class _DecoderBlock(nn.Module):
    """Upsample twofold, join the skip connection where there is one, two convolutions."""

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = _conv_bn_relu(in_channels + skip_channels, out_channels)
        self.conv2 = _conv_bn_relu(out_channels, out_channels)
        self.up = nn.UpsamplingBilinear2d(scale_factor=2)

    def forward(self, x: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        x = self.up(x)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        out: torch.Tensor = self.conv2(self.conv1(x))
        return out


class _Decoder(nn.Module):
    """The "cascaded upsampler": four blocks, of which the last has no skip connection."""

    def __init__(self, hidden: int, width: int, head_channels: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.conv_more = _conv_bn_relu(hidden, head_channels)
        taken = (head_channels, *channels[:-1])
        skips = (8 * width, 4 * width, width, 0)
        self.blocks = nn.ModuleList(map(_DecoderBlock, taken, skips, channels))

    def forward(self, x: torch.Tensor, skips: list[torch.Tensor]) -> torch.Tensor:
        x = self.conv_more(x)
        for block, skip in zip(self.blocks, (*skips, None), strict=True):
            x = block(x, skip)
        return x


class TransUNet(nn.Module):
    """TransUNet for binary or multi-class segmentation at one image size.

    The default is the paper's: 105.3 million parameters. The stem takes three channels; a gray image
    is repeated, as in the official code.

    Args:
        in_channels: 1 (gray) or 3 (RGB).
        num_classes: output channels; 1 for a binary mask.
        image_size: height and width in pixels that the learned positions are for; a multiple of 16.
        width: channels of the stem's root; even.
        units: bottlenecks in the stem's three blocks.
        hidden: channels of a token; a multiple of 64, which is the size of a head.
        layers: of the transformer.
        mlp: channels between the two linear layers of a transformer layer.
        head_channels: channels of the first convolution after the transformer.
        decoder_channels: channels of the decoder's four blocks.

    Raises:
        BadInputError: sizes that cannot be built.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 1,
        image_size: int = 224,
        width: int = 64,
        units: Sequence[int] = (3, 4, 9),
        hidden: int = 768,
        layers: int = 12,
        mlp: int = 3072,
        head_channels: int = 512,
        decoder_channels: Sequence[int] = (256, 128, 64, 16),
    ) -> None:
        super().__init__()
        _check_input(in_channels, num_classes, image_size)
        _check_sizes(width, units, hidden, decoder_channels, (layers, mlp, head_channels))
        self.in_channels = in_channels
        self.image_size = image_size
        self.transformer = _Transformer(
            _Embeddings((image_size // PATCH) ** 2, width, units, hidden), _Encoder(layers, hidden, mlp)
        )
        self.decoder = _Decoder(hidden, width, head_channels, decoder_channels)
        self.segmentation_head = nn.Sequential(
            nn.Conv2d(decoder_channels[-1], num_classes, kernel_size=3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Segment a batch.

        Args:
            x: (N, in_channels, image_size, image_size) float32, normalised.

        Returns:
            (N, num_classes, image_size, image_size) logits.
        """
        tokens, skips = self.transformer(x.expand(-1, 3, -1, -1) if self.in_channels == 1 else x)
        side = self.image_size // PATCH
        coarse = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, side, side)
        logits: torch.Tensor = self.segmentation_head(self.decoder(coarse, skips))
        return logits


def _check_input(in_channels: int, num_classes: int, image_size: int) -> None:
    if in_channels not in (1, 3) or num_classes < 1:
        raise BadInputError(
            f"TransUNet got in_channels={in_channels} and num_classes={num_classes}: "
            "expected 1 or 3 channels and at least 1 class"
        )
    if image_size < 2 * PATCH or image_size % PATCH:
        raise BadInputError(
            f"TransUNet got image_size={image_size}: expected a multiple of {PATCH} from {2 * PATCH} on"
        )


def _check_sizes(
    width: int, units: Sequence[int], hidden: int, decoder_channels: Sequence[int], others: Sequence[int]
) -> None:
    if width < 4 or width % 4:
        raise BadInputError(f"TransUNet got width={width}: expected a multiple of 4, for example 16 or 64")
    if hidden < _HEAD_SIZE or hidden % _HEAD_SIZE:
        raise BadInputError(f"TransUNet got hidden={hidden}: expected a multiple of {_HEAD_SIZE}")
    if len(units) != 3 or min(units) < 1:
        raise BadInputError(f"TransUNet got units={list(units)}: expected three counts, for example 3,4,9")
    if len(decoder_channels) != 4 or min(decoder_channels) < 1:
        raise BadInputError(
            f"TransUNet got decoder_channels={list(decoder_channels)}: expected four counts, "
            "for example 256,128,64,16"
        )
    if min(others) < 1:
        raise BadInputError("TransUNet got layers, mlp or head_channels below 1")


def transunet_arguments(state_dict: Mapping[str, torch.Tensor]) -> dict[str, Any] | None:
    """Read the constructor's arguments off the tensor names and shapes of a plain state dict.

    The weights do not tell whether images were gray and repeated, as in the official code, or RGB: they
    are taken as gray.

    Returns:
        Keyword arguments of `TransUNet`, or None when the tensors are not those of a TransUNet.
    """
    stem = "transformer.embeddings.hybrid_model"
    root = state_dict.get(f"{stem}.root.conv.weight")
    positions = state_dict.get("transformer.embeddings.position_embeddings")
    head = state_dict.get("segmentation_head.0.weight")
    first = state_dict.get("transformer.encoder.layer.0.ffn.fc1.weight")
    more = state_dict.get("decoder.conv_more.0.weight")
    if root is None or positions is None or head is None or first is None or more is None:
        return None
    blocks = [state_dict.get(f"decoder.blocks.{block}.conv2.0.weight") for block in range(4)]
    return {
        "in_channels": 1,
        "num_classes": int(head.shape[0]),
        "image_size": math.isqrt(positions.shape[1]) * PATCH,
        "width": int(root.shape[0]),
        "units": [
            _count(state_dict, f"{stem}.body.block{block}.unit{{}}.conv1.weight", 1) for block in (1, 2, 3)
        ],
        "hidden": int(positions.shape[2]),
        "layers": _count(state_dict, "transformer.encoder.layer.{}.ffn.fc1.weight", 0),
        "mlp": int(first.shape[0]),
        "head_channels": int(more.shape[0]),
        "decoder_channels": [int(block.shape[0]) for block in blocks if block is not None],
    }


def _count(state_dict: Mapping[str, torch.Tensor], pattern: str, start: int) -> int:
    """How many tensors of a numbered name there are, from `start` on."""
    end = start
    while pattern.format(end) in state_dict:
        end += 1
    return end - start
