"""The encoders of the published models: ours, computing as published, with what was added to them.

Shape letters: B batch, C bands, H W pixels, D width, h w token grid, T spectral tokens,
R reduced width.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES, Size, SizeName, encoder_blocks
from hypersigma.backbones.spatial import SpatialViT
from hypersigma.backbones.spectral import SpectralViT
from hypersigma.features import Features
from hypersigma.published.setting import Setting
from hypersigma.published.unused import Shapes, add_unused, retire, shapes_of, with_biases

REDUCED = 128
"""Width R of the spectral tokens behind `l1` to `l4`."""


class Spatial(SpatialViT):
    """A spatial encoder whose levels pass through a neck each, (B, C, H, W) -> maps.

    Args:
        setting: What is free in the model.
        size: Widths, depths and levels, of the setting's size by default.
        learnt_positions: It has a table of positions.
        norm: It has a final norm, which nothing uses.
        num_points: Places that sampling attention looks at.
        necks: What the map of each level passes through, by ascending depth; as it is by default.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        size: Size | None = None,
        learnt_positions: bool,
        norm: bool = True,
        num_points: int = 8,
        necks: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__(
            size or SIZES[setting.size], in_chans=setting.in_chans, img_size=setting.img_size,
            patch_size=setting.patch_size, ssa=True, num_points=num_points, compat=True,
        )  # fmt: skip
        self.learnt_positions = learnt_positions
        if not learnt_positions:
            del self.pos_embed
        if norm:
            retire(self, "norm")
        else:
            del self.norm
        self.has_necks = bool(necks)
        add_numbered(self, "fpn", necks)

    def maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the map of each of `size.levels`, by ascending depth."""
        maps = [as_map(features) for features in self.pyramid(x_BCHW)]
        return apply_numbered(self, "fpn", maps) if self.has_necks else maps

    def positions(self, grid: tuple[int, int]) -> Tensor:
        return super().positions(grid) if self.learnt_positions else torch.zeros(())


class Spectral(SpectralViT):
    """A spectral encoder whose levels are reduced and added up, (B, C, H, W) -> (B, T, R).

    Blocks behind the last of `size.levels` have published weights, and no output depends on them.

    Args:
        setting: What is free in the model.
        size: Widths, depths and levels.
        learnt_positions: It has a table of positions.
        projections: Name of the linear layer that reduces each level.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        size: Size,
        learnt_positions: bool,
        projections: Sequence[str] = ("l1",),
    ) -> None:
        last = size.levels[-1]
        used = replace(size, depth=last + 1, drop_path=size.drop_paths()[last])
        super().__init__(
            used, num_tokens=setting.num_tokens, img_size=setting.img_size, ssa=True, compat=True
        )
        self.learnt_positions = learnt_positions
        if not learnt_positions:
            del self.pos_embed
        retire(self, "norm")
        with torch.device("meta"):
            blocks = encoder_blocks(size, ssa=True)
        for i in range(last + 1, size.depth):
            add_unused(self, shapes_of(blocks[i], f"blocks.{i}."))
        self.projections = tuple(projections)
        for name in self.projections:
            self.add_module(name, nn.Linear(size.dim, REDUCED, bias=False))

    def reduced(self, x_BCHW: Tensor) -> Tensor:
        """Return the reduced tokens, added up over the levels."""
        levels = self.pyramid(x_BCHW)
        reduced = [
            self.get_submodule(name)(features.tokens)
            for name, features in zip(self.projections, levels, strict=True)
        ]
        return torch.stack(reduced).sum(0)

    def positions(self, wavelength_BC: Tensor | None) -> Tensor:
        return super().positions(wavelength_BC) if self.learnt_positions else torch.zeros(())


def sized(name: SizeName, *levels: int, drop_path: float = 0.1) -> Size:
    """Return a named size, with other levels (indices into its own) or rate of dropped paths."""
    size = SIZES[name]
    kept = tuple(size.levels[i] for i in levels) or size.levels
    return replace(size, levels=kept, drop_path=drop_path)


def add_numbered(module: nn.Module, name: str, layers: Sequence[nn.Module]) -> None:
    """Make layers the children `NAME1`, `NAME2`, ... of a module."""
    for number, layer in enumerate(layers, 1):
        module.add_module(f"{name}{number}", layer)


def apply_numbered(module: nn.Module, name: str, maps: Sequence[Tensor]) -> list[Tensor]:
    """Return what child `NAME1` makes of the first map, `NAME2` of the second, ..."""
    return [module.get_submodule(f"{name}{number}")(x) for number, x in enumerate(maps, 1)]


def as_map(features: Features) -> Tensor:
    """Return the tokens as a map (B, D, h, w)."""
    return features.tokens.transpose(1, 2).unflatten(2, features.grid)


def scales(dim: int, patch_size: int) -> list[nn.Module]:
    """Return the necks that give the four levels finer and coarser grids, by ascending depth.

    Raises:
        ValueError: A patch size that none was published for.
    """
    coarser: list[nn.Module] = [nn.Identity(), nn.MaxPool2d(2), nn.MaxPool2d(4)]
    if patch_size in (1, 2):
        return [nn.Sequential(nn.ConvTranspose2d(dim, dim, 2, 2)), *coarser]
    if patch_size in (4, 8):
        return [nn.Identity(), *coarser]
    raise ValueError(f"expected a patch_size of 1, 2, 4 or 8 px, got {patch_size}")


def band_convolutions(tokens: int, count: int) -> Shapes:
    """Return the shapes of `conv_q`, `conv_k` and `conv_v`, which no published model calls."""
    weights: dict[str, tuple[int, ...]] = {}
    for i in range(count):
        weights[f"conv_q.{i}"] = (tokens, tokens, 1, 1)
        weights[f"conv_k.{i}"] = weights[f"conv_v.{i}"] = (tokens, tokens, 1)
    return with_biases(weights)
