"""Random masks over tokens, as pure functions.

Shape letters: B batch, L tokens = h * w, K kept tokens, M hidden tokens.
"""

import torch
from torch import Tensor


def draw_noise(
    batch: int,
    grid: tuple[int, int],
    *,
    block: int = 1,
    like: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """Return noise (B, L) on the device of `like`, drawn where `generator` lives.

    A generator on the CPU gives the same masks on every device.

    Args:
        batch: Samples B.
        grid: (h, w) of the L = h * w tokens.
        block: Tokens along the side of the squares (on a line: in the runs) that are ranked
            together, so that what is hidden lies together; 1 ranks every token by itself.
        like: Tells the device.
        generator: Source; torch's own if None.
    """
    source = like.device if generator is None else generator.device
    alone_BL = torch.rand(batch, grid[0] * grid[1], generator=generator, device=source)
    if block == 1:
        return alone_BL.to(like.device)
    blocks = [-(-side // block) + 1 for side in grid]
    together_Bhw = torch.rand(batch, *blocks, generator=generator, device=source)
    rows_Bh, columns_Bw = (_blocks(batch, side, block, alone_BL, generator) for side in grid)
    sample_B11 = torch.arange(batch, device=source)[:, None, None]
    ranked_Bhw = together_Bhw[sample_B11, rows_Bh[:, :, None], columns_Bw[:, None, :]]
    # Blocks are cut only to keep the count: their tokens rank alone where they rank alike.
    return (ranked_Bhw.flatten(1).double() + 1e-6 * alone_BL).to(like.device)


def _blocks(
    batch: int, side: int, block: int, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return the block that each place on one axis is in, (B, side); blocks begin anywhere."""
    begin_B1 = torch.randint(block, (batch, 1), generator=generator, device=like.device)
    return (torch.arange(side, device=like.device) + begin_B1) // block


def keep_count(tokens: int, mask_ratio: float) -> int:
    """Return how many tokens stay visible, rounded down.

    Raises:
        ValueError: None or all would be visible.
    """
    count = int(tokens * (1 - mask_ratio))
    if not 0 < count < tokens:
        raise ValueError(f"mask_ratio {mask_ratio} leaves {count} of {tokens} tokens visible")
    return count


def random_mask(noise_BL: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the `count` tokens of the smallest noise.

    Returns:
        Their indices (B, K) and those of the others (B, L - K), both by ascending noise, and the
        mask (B, L) bool, True where hidden.
    """
    keep_BK, hidden_BM = noise_BL.argsort(dim=1).tensor_split([count], dim=1)
    mask_BL = torch.ones_like(noise_BL, dtype=torch.bool).scatter(1, keep_BK, False)
    return keep_BK, hidden_BM, mask_BL


def take(x_BLD: Tensor, keep_BK: Tensor) -> Tensor:
    """Return the tokens (B, K, D) at the indices `keep_BK`."""
    return x_BLD.gather(1, keep_BK[..., None].expand(-1, -1, x_BLD.shape[-1]))


def put_back(tokens_BKD: Tensor, keep_BK: Tensor, blank_11D: Tensor, length: int) -> Tensor:
    """Return (B, `length`, D): `tokens_BKD` at the indices `keep_BK`, `blank_11D` elsewhere."""
    full_BLD = blank_11D.to(tokens_BKD.dtype).expand(tokens_BKD.shape[0], length, -1)
    return full_BLD.scatter(1, keep_BK[..., None].expand_as(tokens_BKD), tokens_BKD)
