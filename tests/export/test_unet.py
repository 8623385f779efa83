"""The U-Net against the article's own code, written out here as the reference."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from seg_export.families.semantic.unet import UNet, unet_arguments
from seg_runtime.errors import BadInputError


def double_conv(in_channels: int, out_channels: int, mid_channels: int | None = None) -> nn.Module:
    mid_channels = mid_channels or out_channels
    module = nn.Module()
    module.double_conv = nn.Sequential(
        nn.Conv2d(in_channels, mid_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(mid_channels),
        nn.ReLU(),
        nn.Conv2d(mid_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
    module.forward = module.double_conv.forward  # type: ignore[method-assign]
    return module


class ArticleUNet(nn.Module):
    """The article's U-Net with its fixed widths divided by `narrow`."""

    def __init__(self, in_channels: int, num_classes: int, bilinear: bool, narrow: int) -> None:
        super().__init__()
        widths = [64 // narrow, 128 // narrow, 256 // narrow, 512 // narrow, 1024 // narrow]
        factor = 2 if bilinear else 1
        self.inc = double_conv(in_channels, widths[0])
        for level in range(1, 5):
            down = nn.Module()
            out = widths[level] // (factor if level == 4 else 1)
            down.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), double_conv(widths[level - 1], out))
            self.add_module(f"down{level}", down)
        for step, (width, out) in enumerate(
            [
                (widths[4], widths[3] // factor),
                (widths[3], widths[2] // factor),
                (widths[2], widths[1] // factor),
                (widths[1], widths[0]),
            ],
            start=1,
        ):
            up = nn.Module()
            if bilinear:
                up.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
                up.conv = double_conv(width, out, width // 2)
            else:
                up.up = nn.ConvTranspose2d(width, width // 2, kernel_size=2, stride=2)
                up.conv = double_conv(width, out)
            self.add_module(f"up{step}", up)
        self.out = nn.Conv2d(widths[0], num_classes, kernel_size=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = [self.inc(x)]
        for level in range(1, 5):
            skips.append(getattr(self, f"down{level}").maxpool_conv(skips[-1]))
        x = skips.pop()
        for step in range(1, 5):
            up, skip = getattr(self, f"up{step}"), skips.pop()
            x = up.up(x)
            diff_h, diff_w = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
            x = F.pad(x, [diff_w // 2, diff_w - diff_w // 2, diff_h // 2, diff_h - diff_h // 2])
            x = up.conv(torch.cat([skip, x], dim=1))
        logits: torch.Tensor = self.out(x)
        return logits


def parameter_count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("bilinear", [True, False])
@pytest.mark.parametrize("size_hw", [(64, 64), (53, 71)])
def test_unet_loads_the_articles_weights_and_gives_its_logits(
    bilinear: bool, size_hw: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    article = ArticleUNet(1, 2, bilinear, narrow=16).eval()
    ours = UNet(1, 2, bilinear, features=(4, 8, 16, 32, 64)).eval()
    ours.load_state_dict(article.state_dict())
    image = torch.randn(2, 1, *size_hw)
    with torch.no_grad():
        logits = ours(image)
        assert torch.equal(logits, article(image))
    assert logits.shape == (2, 2, *size_hw)


def test_default_unet_has_31_million_parameters_with_transposed_convolutions() -> None:
    with torch.device("meta"):
        assert parameter_count(UNet(bilinear=False)) == 31_036_481
        assert parameter_count(UNet()) == 17_261_825
        assert parameter_count(ArticleUNet(1, 1, False, narrow=1)) == 31_036_481


def test_four_features_are_read_as_inc_and_three_downs() -> None:
    model = UNet(features=[32, 64, 128, 256])
    assert [name for name, _ in model.named_children()] == [
        *("inc", "down1", "down2", "down3", "up1", "up2", "up3", "out")
    ]
    assert model.inc.double_conv[0].out_channels == 32
    assert model.get_submodule("down3.maxpool_conv.1.double_conv.3").out_channels == 256 // 2
    assert model.eval()(torch.zeros(1, 1, 33, 40)).shape == (1, 1, 33, 40)


@pytest.mark.parametrize("bilinear", [True, False])
def test_constructor_arguments_are_read_off_the_weights(bilinear: bool) -> None:
    arguments = {"in_channels": 3, "num_classes": 4, "bilinear": bilinear, "features": [4, 8, 12, 20]}
    assert unet_arguments(UNet(**arguments).state_dict()) == arguments


def test_weights_of_another_network_give_no_arguments() -> None:
    assert unet_arguments(nn.Linear(2, 2).state_dict()) is None


@pytest.mark.parametrize("features", [(16,), (16, 33), (0, 16), ()])
def test_unet_refuses_channel_counts_that_cannot_be_built(features: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="two or more even channel counts"):
        UNet(features=features)
