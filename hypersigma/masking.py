"""Random masks over tokens, as pure functions.

Shape letters: B batch, L tokens, K kept tokens.
"""

import torch
from torch import Tensor


def draw_noise(
    batch: int, tokens: int, *, like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return uniform noise (B, L) on the device of `like`, drawn where `generator` lives.

    A generator on the CPU gives the same masks on every device.
    """
    source = like.device if generator is None else generator.device
    return torch.rand(batch, tokens, generator=generator, device=source).to(like.device)


def keep_count(tokens: int, mask_ratio: float) -> int:
    """Return how many tokens stay visible, rounded down.

    Raises:
        ValueError: None or all would be visible.
    """
    count = int(tokens * (1 - mask_ratio))
    if not 0 < count < tokens:
        raise ValueError(f"mask_ratio {mask_ratio} leaves {count} of {tokens} tokens visible")
    return count


def random_mask(noise_BL: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keep the `count` tokens of the smallest noise.

    Returns:
        Their indices (B, K), by ascending noise, and the mask (B, L) bool, True where hidden.
    """
    keep_BK = noise_BL.argsort(dim=1)[:, :count]
    mask_BL = torch.ones_like(noise_BL, dtype=torch.bool).scatter(1, keep_BK, False)
    return keep_BK, mask_BL


def take(x_BLD: Tensor, keep_BK: Tensor) -> Tensor:
    """Return the tokens (B, K, D) at the indices `keep_BK`."""
    return x_BLD.gather(1, keep_BK[..., None].expand(-1, -1, x_BLD.shape[-1]))


def put_back(tokens_BKD: Tensor, keep_BK: Tensor, blank_11D: Tensor, length: int) -> Tensor:
    """Return (B, `length`, D): `tokens_BKD` at the indices `keep_BK`, `blank_11D` elsewhere."""
    full_BLD = blank_11D.to(tokens_BKD.dtype).expand(tokens_BKD.shape[0], length, -1)
    return full_BLD.scatter(1, keep_BK[..., None].expand_as(tokens_BKD), tokens_BKD)
