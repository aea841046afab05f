"""What the published fine-tuned models share: encoders, and maps weighed by the spectrum.

Shape letters: B batch, C bands, H W pixels, D width, h w map, T spectral tokens, K channels.

Source: Wang et al. 2025, doi:10.1109/TPAMI.2025.3557581 (spectral enhancement).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from hypersigma.published.encoders import Spatial, Spectral, add_numbered, apply_numbered


class Trunk(nn.Module):
    """A spatial encoder alone, or with a spectral one that weighs its maps channel by channel.

    Alone it is named `encoder`; else they are `spat_encoder` and `spec_encoder`, and the gates
    `fc_spec`, or `fc_spec1`, `fc_spec2`, ... if each map has its own.

    Args:
        spatial: The spatial encoder.
        spectral: The spectral encoder, or None.
        gates: Number of gates.
        hidden: Width inside a gate.
        channels: Channels K of the maps that are weighed.
    """

    def __init__(
        self, spatial: Spatial, spectral: Spectral | None, *, gates: int, hidden: int, channels: int
    ) -> None:
        super().__init__()
        self.gates = 0 if spectral is None else gates
        if spectral is None:
            self.encoder = spatial
            return
        self.spat_encoder, self.spec_encoder = spatial, spectral
        layers = [gate(spectral.num_tokens, hidden, channels) for _ in range(gates)]
        if gates == 1:
            self.fc_spec = layers[0]
        else:
            add_numbered(self, "fc_spec", layers)

    def maps(self, x_BCHW: Tensor) -> list[Tensor]:
        """Return the spatial encoder's maps, by ascending depth."""
        return (self.spat_encoder if self.gates else self.encoder).maps(x_BCHW)

    def enhance(self, maps: Sequence[Tensor], x_BCHW: Tensor) -> list[Tensor]:
        """Return the maps (B, K, h, w) times 1 + w, or as they are without a spectral encoder.

        w (B, K) in (0, 1) is what the maps' gates make of the spectral summary.
        """
        if not self.gates:
            return list(maps)
        summary_BT = self.summary(x_BCHW)
        if self.gates == 1:
            weights = [self.fc_spec(summary_BT)] * len(maps)
        else:
            weights = apply_numbered(self, "fc_spec", [summary_BT] * len(maps))
        return [(1 + w_BK[..., None, None]) * m for w_BK, m in zip(weights, maps, strict=True)]

    def summary(self, x_BCHW: Tensor) -> Tensor:
        """Return one value (B, T) for each spectral token."""
        return self.spec_encoder.reduced(x_BCHW).mean(-1)


def gate(tokens: int, hidden: int, channels: int) -> nn.Sequential:
    """Return the layers from a spectral summary (B, T) to weights (B, K) in (0, 1)."""
    return nn.Sequential(
        nn.Linear(tokens, hidden, bias=False), nn.ReLU(),
        nn.Linear(hidden, channels, bias=False), nn.Sigmoid(),
    )  # fmt: skip


def pointwise(dim: int, channels: int) -> nn.Conv2d:
    """Return a 1 x 1 convolution without bias."""
    return nn.Conv2d(dim, channels, 1, bias=False)
