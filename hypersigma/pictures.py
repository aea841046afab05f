"""The picture of what a masked autoencoder was shown, hid and predicted."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from hypersigma.data import Inputs
from hypersigma.mae import Mae

PICTURE_SEED = 0
PICTURE_FILE = "reconstruction.png"


def draw_reconstruction(run: Path, model: Mae, batch: Inputs, step: int) -> None:
    """Draw the batch's first tile into `reconstruction.png` and TensorBoard.

    Left to right: a band that was hidden, what the model was shown of it, what it predicted, and
    the spectrum of the middle pixel of the first hidden token, true and predicted.
    """
    model.eval()
    rng = torch.Generator().manual_seed(PICTURE_SEED)
    with torch.inference_mode():
        out = model(batch.x, batch.wavelength, valid_BHW=batch.valid, generator=rng)
    values = (out.unscaled(out.target), out.unscaled(out.prediction))
    true, predicted = (model.unpatchify(v.float())[0].cpu().numpy() for v in values)
    hidden = model.unpatchify(out.mask[..., None].expand_as(out.target))[0].cpu().numpy()
    band = int(hidden.reshape(len(hidden), -1).any(axis=1).argmax())
    row, column = np.argwhere(hidden[band])[np.count_nonzero(hidden[band]) // 2]
    shown = np.where(hidden, np.nan, true)[band]
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), width_ratios=(1, 1, 1, 1.6))
    low, high = np.percentile(true[band], (2, 98))
    titles = (f"band {band + 1} of the window", "shown", "predicted")
    for axis, title, image in zip(axes, titles, (true[band], shown, predicted[band]), strict=False):
        axis.imshow(image, vmin=low, vmax=high, cmap="viridis")
        axis.set_title(title)
        axis.set_axis_off()
    wavelength = batch.wavelength[0].cpu().numpy()
    axes[3].plot(wavelength, true[:, row, column], label="true")
    axes[3].plot(wavelength, predicted[:, row, column], label="predicted")
    axes[3].set(xlabel="wavelength [nm]", ylabel="input value", title="one hidden pixel")
    axes[3].legend()
    figure.tight_layout()
    figure.savefig(run / PICTURE_FILE, dpi=110)
    plt.close(figure)
    with SummaryWriter(str(run / "tensorboard")) as writer:
        pixels = plt.imread(run / PICTURE_FILE)[..., :3]
        writer.add_image("reconstruction", pixels, step, dataformats="HWC")
