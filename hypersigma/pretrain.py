"""Pretrain a masked autoencoder on a shard set."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydantic.dataclasses
import torch
from pydantic import ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from hypersigma import checkpoint, distributed, inputs
from hypersigma.backbones.sizes import SizeName
from hypersigma.data import Inputs, Scaling, scaling, tile_batches
from hypersigma.dryrun import dry_run
from hypersigma.heldout import HeldOut, draw_errors, held_out_errors, write_errors
from hypersigma.inputs import SensorInput
from hypersigma.loader import TileBatch
from hypersigma.mae import Mae, MaeOutput, spatial_mae, spectral_mae
from hypersigma.pictures import draw_reconstruction, pixels, shown, spectrum, strip
from hypersigma.probe import Probe, ProbeConfig
from hypersigma.processes import process
from hypersigma.runfolder import TrainError, finished, resumable, run_identity, write_summary
from hypersigma.train import Job, TrainConfig, fit
from storage.nearby import cache_folder
from storage.stream import Payloads, ShardSet, Stream, open_shards, select

logger = logging.getLogger(__name__)

PICTURED_TILES = 2
DECODER_POSITION_GAIN = 4.0
"""On the spatial decoder's fixed table, whose root mean square is 0.7 before."""


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PretrainConfig:
    """What `hypersigma-train pretrain` reads."""

    run: Path
    """Folder of this run: checkpoints, logs, summary.json."""
    shards: str
    """What `hypersigma-data shards` wrote: a folder, or `s3://bucket/prefix`."""
    kind: Literal["spatial", "spectral"]
    """Whether patches or bands are the tokens."""
    size: SizeName
    train: TrainConfig
    init: Path | None = None
    """A pretraining run or checkpoint of the same model, whose weights this new run begins with;
    null: weights drawn from the seed."""
    bands: PositiveInt = 100
    """Neighbouring bands that the model sees of a tile; which ones is drawn anew every epoch."""
    mask_ratio: float = Field(default=0.75, gt=0, lt=1)
    """Share of the tokens that are hidden."""
    mask_block: PositiveInt = 1
    """Side of the squares of patches, or length of the runs of bands, that are hidden together."""
    norm_pix: bool = False
    """Predict each token less its mean, by its standard deviation."""
    anchor: bool = True
    """Spectral: predict the difference from the straight line between the visible bands beside."""
    standardize: bool = True
    """Per band by the training split's mean and standard deviation; false: stored / scale."""
    augment: bool = True
    """Flip and turn tiles."""
    workers: NonNegativeInt = 0
    """Processes that read; 0: a thread of the training one."""
    cache_gb: NonNegativeFloat = 0
    """Of a bucket's tiles, kept on this machine's disk in HYPERSIGMA_CACHE; 0: none."""
    probe: ProbeConfig | None = None
    """Labelled tiles whose classes the features are tried on at each look at held-out data."""


def pretrain(config: PretrainConfig, *, dry: bool = False) -> dict[str, Any]:
    """Train, or go on with, the run that `config` describes, and return its summary.

    Of several processes the first one returns it, the others nothing. A run that a scheduler
    stopped returns how far it is. A dry one is measured, and returns what it needs.

    Raises:
        TrainError: The run folder is another run's, or steps go wrong too often.
        InterruptedRunError: Ctrl-C; the run is saved.
        SchemaError: The shards are missing or damaged, or have no training tile.
    """
    with process(config.train) as device:
        return _pretrain(config, device, dry=dry)


def _pretrain(config: PretrainConfig, device: torch.device, *, dry: bool) -> dict[str, Any]:
    shards = open_shards(config.shards)
    contracts = inputs.from_manifest(shards.manifest, standardize=config.standardize)
    identity = run_identity("pretrain", config, shards.manifest, contracts)
    if not dry and (done := finished(config.run, identity)) is not None:
        return done
    model = _begun(config).to(device)
    tables = scaling(contracts, device)
    held_out = HeldOut.of(
        shards,
        config.train.batch_size,
        lambda rows, size, seed: _stream(config, shards, rows, batch_size=size, seed=seed),
    )
    probe = _probe(config, shards)
    job = Job(
        model=model,
        batches=lambda state: tile_batches(
            training_stream(config, shards), state, augment=config.augment, workers=config.workers,
            process=distributed.rank(), processes=distributed.world(),
        ),
        losses=lambda forward, batch, rng: mae_losses(forward, model, tables.inputs(batch), rng),
        samples=lambda batch: batch.tile_ids,
        evaluate=lambda: held_out.losses(
            lambda batch, rng: mae_losses(model, model, tables.inputs(batch), rng)
        ) | (_probed(probe, config, model, tables) if probe else {}),
        score=None,
        identity=identity,
        look=lambda: _pictures(held_out, model, tables, contracts),
    )  # fmt: skip
    if dry:
        return dry_run(job, config.train, config.run, workers=config.workers)
    progress = fit(job, config.train, config.run)
    if distributed.rank():
        return {}
    if progress.step < config.train.steps:
        return resumable(config.run, progress, config.train.steps)
    found: dict[str, Any] = {"held_out_split": held_out.split}
    if held_out.split is not None:
        # Anew from the checkpoint: an engine may have shared the model out.
        model = new_model(config)
        model.load_state_dict(checkpoint.find(config.run).weights())
        model.to(device)
        first = next(held_out.batches())
        draw_reconstruction(config.run, shown(model, tables.inputs(first), 1)[0])
        errors = held_out_errors(model, tables, contracts, held_out.batches())
        found["reconstruction"] = write_errors(config.run, contracts, errors)
    return write_summary(config.run, identity, progress, found)


def _probe(config: PretrainConfig, shards: ShardSet) -> Probe | None:
    if config.probe is None:
        return None
    if config.train.engine == "deepspeed" and config.train.zero == 3:
        raise TrainError("probe needs whole weights: expected train.zero up to 2 with it, got 3")
    return Probe.of(shards, config.probe)


def _probed(probe: Probe, config: PretrainConfig, model: Mae, tables: Scaling) -> dict[str, float]:
    def features(batch: TileBatch) -> Tensor:
        inputs = tables.inputs(batch)
        return model.features(inputs.x, inputs.wavelength, inputs.valid)

    return probe.scores(features, bands=config.bands, size=config.train.batch_size)


def _pictures(
    held_out: HeldOut, model: Mae, tables: Scaling, contracts: Mapping[str, SensorInput]
) -> dict[str, np.ndarray]:
    """Return the first held-out tiles as the model sees them, and its errors band by band."""
    batch = next(held_out.batches(), None)
    if batch is None:
        return {}
    errors = held_out_errors(model, tables, contracts, [batch])
    tiles = shown(model, tables.inputs(batch), PICTURED_TILES)
    if distributed.rank():  # it computed with the others, and the first one shows
        return {}
    return {
        "band_errors": pixels(draw_errors(contracts, errors)),
        "spectrum": spectrum(tiles[0]),
        **{f"reconstruction/{number}": strip(tile) for number, tile in enumerate(tiles)},
    }


def _begun(config: PretrainConfig) -> Mae:
    """Return the model as a new run begins with it.

    Raises:
        TrainError: `init` is of another model.
    """
    torch.manual_seed(config.train.seed)
    model = new_model(config)
    init_blocks(model)
    if config.init is not None:
        found = checkpoint.find(config.init)
        try:
            model.load_state_dict(found.weights())
        except RuntimeError as error:
            raise TrainError(f"init: {found.folder} is not of this model: {error}") from error
        logger.info("begins with the weights of %s", found.folder)
    return model


def new_model(config: PretrainConfig) -> Mae:
    """Return the untrained masked autoencoder that a config describes."""
    common: dict[str, Any] = {
        "bands": config.bands, "mask_ratio": config.mask_ratio, "block": config.mask_block,
        "norm_pix": config.norm_pix, "recompute": config.train.recompute,
    }  # fmt: skip
    if config.kind == "spatial":
        return spatial_mae(config.size, **common)
    return spectral_mae(config.size, **common, anchor=config.anchor)


def init_blocks(model: Mae) -> None:
    """Draw the weights of both networks' blocks in proportion to their width.

    With one spread for all widths (0.02, as published) and positions no louder than contents, a
    narrow network stands still for hundreds of steps before its attention finds the neighbours of
    what is hidden; measured on synthetic scenes, size tiny.

    Source: He et al. 2022, arXiv:2111.06377, appendix A.1; Glorot & Bengio 2010.
    """
    for part in (model.blocks, model.decoder_blocks, model.decoder_embed):
        for module in part.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
    with torch.no_grad():
        model.decoder_pos_embed.mul_(DECODER_POSITION_GAIN)


def mae_losses(
    forward: Callable[..., MaeOutput], model: Mae, batch: Inputs, rng: torch.Generator
) -> dict[str, Tensor]:
    """Return the loss, and that of predicting the mean spectrum for the same hidden tokens.

    Args:
        forward: The model, or what an engine made of it.
        model: The model itself.
        batch: Its inputs.
        rng: Of the masks.
    """
    out = forward(batch.x, batch.wavelength, valid_BHW=batch.valid, generator=rng, hidden_only=True)
    with torch.no_grad():
        plain = model.loss_of(batch.mean[..., None, None].expand_as(batch.x), out)
    return {"loss": out.loss, "loss_mean_spectrum": plain}


def training_stream(config: PretrainConfig, shards: ShardSet) -> Stream:
    """Return the training split's stream.

    Raises:
        SchemaError: The training split has no full batch, or a sensor fewer bands than asked for.
    """
    return _stream(
        config, shards, select(shards, split="train"), batch_size=config.train.batch_size,
        seed=config.train.seed,
    )  # fmt: skip


def _stream(
    config: PretrainConfig, shards: ShardSet, rows: np.ndarray, *, batch_size: int, seed: int
) -> Stream:
    most = round(config.cache_gb * 1e9)
    payloads = Payloads(cache_folder() / "payloads", most) if most else None
    return Stream(
        shards, rows, batch_size=batch_size, bands=config.bands, seed=seed, payloads=payloads
    )
