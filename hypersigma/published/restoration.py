"""What the published denoising and super-resolution share: blocks on the map of the last level.

Shape letters: B batch, C bands, H W pixels, D width, h w map, T spectral tokens, K channels.
"""

import torch
from torch import Tensor, nn

from hypersigma.backbones.sizes import SIZES, Size
from hypersigma.layers.block import block_stack
from hypersigma.layers.patch_embed import PatchEmbed
from hypersigma.published.encoders import REDUCED, Spatial, Spectral, band_convolutions, sized
from hypersigma.published.setting import Setting
from hypersigma.published.trunk import Trunk
from hypersigma.published.unused import Shapes, add_unused, shapes_of, with_biases

HEADS = 12
SAMPLED = (True, True, False, True)
"""Which of the added blocks use sampling attention."""

SPATIAL_WIDTH = 180
"""Width of the added blocks in the spatial-only models; published fused ones carry them unused."""


class SpatialRestorer(Spatial):
    """SpatSIGMA for restoration up to `conv3_reconstruct`.

    Args:
        setting: What is free in the model.
        learnt_positions: The encoder and the added blocks have tables of positions.
        upsample: The last map is enlarged to twice its grid.
    """

    def __init__(self, setting: Setting, *, learnt_positions: bool, upsample: bool) -> None:
        check_patch(setting, upsample=upsample)
        super().__init__(setting, size=sized(setting.size, -1), learnt_positions=learnt_positions)
        dim, bands, width = self.size.dim, setting.in_chans, SPATIAL_WIDTH
        self.enlarge_map = upsample
        if upsample:
            self.up1 = nn.ConvTranspose2d(dim, dim, 2, 2)
        else:
            add_unused(self, with_biases({"up1": (dim, dim, 2, 2)}))
        self.patch_embed_add = PatchEmbed(dim, width, 1)
        self.pos_embed_add = position_table(setting, width) if learnt_positions else None
        self.blocks_add = added_blocks(width, self.size)
        self.conv1_reconstruct = conv3(width, width)
        self.conv2_reconstruct = conv3(width, bands)
        self.conv3_reconstruct = conv3(2 * bands, bands)
        add_unused(self, with_biases({"conv_head": (bands, bands, 3, 3)}))

    def restored(self, x_BCHW: Tensor) -> Tensor:
        """Return the image (B, C, H, W) that `conv3_reconstruct` gives."""
        x_BDhw = self.maps(x_BCHW)[-1]
        if self.enlarge_map:
            x_BDhw = self.up1(x_BDhw)
        x_BKhw = run_blocks(x_BDhw, self.patch_embed_add, self.pos_embed_add, self.blocks_add)
        refined = self.conv2_reconstruct(self.conv1_reconstruct(x_BKhw))
        return self.conv3_reconstruct(torch.cat((x_BCHW, refined), 1))


class Adapter(nn.Module):
    """Blocks that take a map (B, D, h, w) to one of another width, (B, K, h, w)."""

    def __init__(self, setting: Setting, size: Size, width: int, *, learnt_positions: bool) -> None:
        super().__init__()
        self.patch_embed_add = PatchEmbed(size.dim, width, 1)
        self.pos_embed_add = position_table(setting, width) if learnt_positions else None
        self.blocks_add = added_blocks(width, size)
        add_unused(self, unused_adapter(setting, size.dim, learnt_positions=learnt_positions))

    def forward(self, x_BDhw: Tensor) -> Tensor:
        return run_blocks(x_BDhw, self.patch_embed_add, self.pos_embed_add, self.blocks_add)


class SpectralAdapter(nn.Module):
    """Blocks on reduced spectral tokens, (B, T, R) -> (B, T, R)."""

    def __init__(self, setting: Setting, size: Size, *, learnt_positions: bool) -> None:
        super().__init__()
        self.blocks = added_blocks(REDUCED, size)
        add_unused(self, unused_adapter_spec(setting, learnt_positions=learnt_positions))

    def forward(self, tokens_BTR: Tensor, grid: tuple[int, int]) -> Tensor:
        for block in self.blocks:
            tokens_BTR = block(tokens_BTR, grid)
        return tokens_BTR


class FusedRestorer(Trunk):
    """HyperSIGMA for restoration up to `conv3_reconstruct`; the arguments are as above."""

    def __init__(
        self, setting: Setting, *, learnt_positions: bool, upsample: bool, drop_path: float
    ) -> None:
        check_patch(setting, upsample=upsample)
        size = sized(setting.size, -1, drop_path=drop_path)
        bands = setting.in_chans
        super().__init__(
            Spatial(setting, size=size, learnt_positions=learnt_positions),
            Spectral(setting, size=size, learnt_positions=learnt_positions),
            gates=1, hidden=128, channels=bands,
        )  # fmt: skip
        self.enlarge_map = upsample
        if upsample:
            self.spat_encoder.add_module("up1", nn.ConvTranspose2d(size.dim, size.dim, 2, 2))
        else:
            add_unused(self.spat_encoder, with_biases({"up1": (size.dim, size.dim, 2, 2)}))
        self.adapter = Adapter(setting, size, bands, learnt_positions=learnt_positions)
        self.adapter_spec = SpectralAdapter(setting, size, learnt_positions=learnt_positions)
        self.conv3_reconstruct = conv3(2 * bands, bands)
        spatial = unused_spatial(setting, size.dim, learnt_positions=learnt_positions)
        add_unused(self.spat_encoder, spatial)
        add_unused(self.spec_encoder, unused_spectral(setting))

    def restored(self, x_BCHW: Tensor) -> Tensor:
        """Return the image (B, C, H, W) that `conv3_reconstruct` gives."""
        x_BDhw = self.maps(x_BCHW)[-1]
        if self.enlarge_map:
            x_BDhw = self.spat_encoder.get_submodule("up1")(x_BDhw)
        refined = self.enhance([self.adapter(x_BDhw)], x_BCHW)[0]
        return self.conv3_reconstruct(torch.cat((x_BCHW, refined), 1))

    def summary(self, x_BCHW: Tensor) -> Tensor:
        tokens_BTR = self.spec_encoder.reduced(x_BCHW)
        return self.adapter_spec(tokens_BTR, self.spec_encoder.grid).mean(-1)


def check_patch(setting: Setting, *, upsample: bool) -> None:
    """Raise ValueError unless the last map has the size of the image."""
    whole = 2 if upsample else 1
    if setting.patch_size != whole:
        raise ValueError(f"expected a patch_size of {whole} px, got {setting.patch_size}")


def added_blocks(width: int, size: Size) -> nn.ModuleList:
    """Return the four blocks that follow an encoder of a size."""
    drop_paths = size.drop_paths()[: len(SAMPLED)]
    return block_stack(width, HEADS, drop_paths=drop_paths, sampled=SAMPLED)


def position_table(setting: Setting, width: int) -> nn.Parameter:
    """Return a table of positions for one token a pixel."""
    return nn.Parameter(nn.init.trunc_normal_(torch.empty(1, setting.img_size**2, width), std=0.02))


def run_blocks(
    x_BDhw: Tensor, embed: PatchEmbed, positions: Tensor | None, blocks: nn.ModuleList
) -> Tensor:
    """Return the map (B, K, h, w) that the added blocks make of a map."""
    tokens_BLK, grid = embed(x_BDhw)
    if positions is not None:
        tokens_BLK = tokens_BLK + positions
    for block in blocks:
        tokens_BLK = block(tokens_BLK, grid)
    return tokens_BLK.transpose(1, 2).unflatten(2, grid)


def conv3(width: int, channels: int) -> nn.Conv2d:
    """Return a 3 x 3 convolution that keeps the size."""
    return nn.Conv2d(width, channels, 3, padding=1)


def unused_spatial(setting: Setting, dim: int, *, learnt_positions: bool) -> Shapes:
    """Return what the fused models' spatial encoder has from the spatial-only model."""
    bands, width = setting.in_chans, SPATIAL_WIDTH
    with torch.device("meta"):
        blocks = added_blocks(width, SIZES[setting.size])
    layers = {
        "patch_embed_add.proj": (width, dim, 1, 1),
        "conv1_reconstruct": (width, dim, 3, 3),
        "conv2_reconstruct": (bands, width, 3, 3),
        "conv3_reconstruct": (bands, 2 * bands, 3, 3),
        "conv_head": (bands, bands, 3, 3),
        "conv_tail": (bands, bands, 3, 3),
    }
    table = {"pos_embed_add": (1, setting.img_size**2, width)} if learnt_positions else {}
    return {**shapes_of(blocks, "blocks_add."), **with_biases(layers), **table}


def unused_adapter(setting: Setting, dim: int, *, learnt_positions: bool) -> Shapes:
    """Return what the adapter has from an encoder."""
    bands = setting.in_chans
    square = (bands, bands, 3, 3)
    layers = {
        "patch_embed.proj": (dim, bands, 1, 1),
        "norm": (dim,),
        "up1": (dim, dim, 2, 2),
        **dict.fromkeys(("conv1_reconstruct", "conv2_reconstruct", "conv_head"), square),
    }
    table = {"pos_embed": (1, setting.img_size**2, dim)} if learnt_positions else {}
    return {**with_biases(layers), **table}


def unused_spectral(setting: Setting) -> Shapes:
    """Return what both parts of the spectral branch have beside their blocks."""
    square = (setting.in_chans, setting.in_chans, 3, 3)
    layers = with_biases(dict.fromkeys(("conv_head", "conv1_reconstruct"), square))
    return {**band_convolutions(setting.num_tokens, 1), **layers}


def unused_adapter_spec(setting: Setting, *, learnt_positions: bool) -> Shapes:
    """Return what the spectral adapter has from an encoder."""
    layers = {"spat_map": (REDUCED, setting.img_size**2), "norm": (REDUCED,)}
    table = {"pos_embed": (1, setting.num_tokens, REDUCED)} if learnt_positions else {}
    return {
        "l1.weight": (REDUCED, REDUCED),
        **with_biases(layers),
        **unused_spectral(setting),
        **table,
    }
