"""What tells small targets, known or unknown, from a background that nobody has labelled.

The score is a classical statistic (RX, or ACE for a known target, of components weighed by their
share of signal) and a correction of bounded size that the network learns from targets that are put
into the image: see `hypersigma.tasks.implants`. Before training it is the statistic.

Shape letters: B batch, C bands, w window side, S statistics.
"""

import pydantic.dataclasses
import torch
import torch.nn.functional as F
from pydantic import ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from hypersigma.cubes.preprocess import Standardize
from hypersigma.tasks.dense import FEATURES, DenseTrunk
from hypersigma.tasks.task import Facts, TaskConfig
from hypersigma.tasks.trunk import REDUCED
from hypersigma.tasks.whitening import Whiten

EPS = 1e-6


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class DetectorOptions:
    """What `options` of a detection may have."""

    window: PositiveInt = 32
    """Side of the windows that the model sees [pixel]; whole patches."""
    overlap: NonNegativeInt = 16
    """Pixels that neighbouring windows share when a whole cube is looked at."""
    implants: PositiveInt = 6
    """Targets that are put into a window while training, at most."""
    side: PositiveInt = 5
    """Side of these [pixel], at most."""
    correction: PositiveFloat = 0.03
    """What the network can add to the statistic or take off it, at most. Put-in targets are not
    the real ones: what it learns from them shall decide between pixels that are nearly alike."""


class Detector(DenseTrunk):
    """Score of every pixel, (B, C, w, w) as in the cube -> logits (B, 1, w, w).

    Args:
        facts: Bands and wavelengths.
        config: Encoders and patches.
        options: Windows.
        known: Whether the target's spectrum is known, `target_C`.

    Raises:
        ValueError: Targets that are put into windows are larger than these.
    """

    def __init__(
        self, facts: Facts, config: TaskConfig, options: DetectorOptions, *, known: bool
    ) -> None:
        if options.side > options.window:
            raise ValueError(
                f"expected targets of at most the window's {options.window} px to train with, got "
                f"{options.side} px; make options.side smaller, or options.window larger"
            )
        super().__init__(facts, config, options.window)
        self.inputs, self.whiten = Standardize(facts.bands), Whiten(facts.bands)
        self.target_C: Tensor | None
        self.register_buffer("target_C", torch.zeros(facts.bands) if known else None)
        statistics = 3 if known else 1
        self.whitened = nn.Sequential(
            nn.Conv2d(facts.bands, REDUCED, 1), nn.GELU(), nn.Conv2d(REDUCED, REDUCED, 1)
        )
        self.correction = options.correction
        # A probability for the loss; the order of the scores stays.
        self.log_scale, self.threshold = (nn.Parameter(torch.zeros(())) for _ in range(2))
        self.head = nn.Sequential(
            nn.Conv2d(FEATURES + REDUCED + statistics, REDUCED, 1), nn.GELU(),
            nn.Conv2d(REDUCED, 1, 1),
        )  # fmt: skip
        with torch.no_grad():
            for parameter in self.head[-1].parameters():
                parameter.zero_()

    def forward(self, x_BCww: Tensor) -> Tensor:
        z_BCww = self.whiten(x_BCww)
        statistics = self.statistics(z_BCww)
        parts = (self.features(self.inputs(x_BCww)), self.whitened(z_BCww))
        learnt = self.correction * self.head(torch.cat((*parts, statistics), 1)).tanh()
        return self.log_scale.exp() * (statistics[:, :1] + learnt - self.threshold)

    def statistics(self, z_BCww: Tensor) -> Tensor:
        """Return what classical detectors say of whitened spectra, (B, S, w, w).

        Without a target log(1 + RX / C); with one ACE, the matched filter, and that.
        """
        power = z_BCww.square().mean(1, keepdim=True)
        rx = power.log1p()
        if self.target_C is None:
            return rx
        t_C = self.whiten.target(self.target_C)
        along = torch.einsum("c,bchw->bhw", t_C, z_BCww)[:, None]
        filtered = along / t_C.square().sum()
        cosine = along / (t_C.norm() * (power * len(t_C)).sqrt()).clamp_min(EPS)
        return torch.cat((cosine, filtered, rx), 1)

    def loss(self, logits_B1ww: Tensor, target_Bww: Tensor) -> Tensor:
        """Return the cross-entropy, targets and background weighing the same, a scalar."""
        logits = logits_B1ww[:, 0]
        hit, miss = target_Bww == 1, target_Bww == 0
        each = F.binary_cross_entropy_with_logits(logits, hit.float(), reduction="none")
        return (each * hit).sum() / hit.sum().clamp_min(1) + (each * miss).sum() / miss.sum()
