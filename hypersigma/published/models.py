"""The published models by the file stems of their listings, and what each is made for."""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from hypersigma.backbones.sizes import SizeName
from hypersigma.published.change import ChangeDetector
from hypersigma.published.classification import FusedClassifier, SpatialClassifier
from hypersigma.published.denoising import FusedDenoiser, SpatialDenoiser
from hypersigma.published.detection import AnomalyDetector, TargetDetector
from hypersigma.published.mae import PublishedSpatialMae, PublishedSpectralMae
from hypersigma.published.multispectral import MultispectralChange
from hypersigma.published.segmentation import FusedSegmentation, SpatialSegmentation
from hypersigma.published.setting import Setting
from hypersigma.published.super_resolution import FusedUpscaler, SpatialUpscaler
from hypersigma.published.unmixing import Unmixing


def _spat_mae(size: SizeName) -> Setting:
    return Setting(in_chans=100, img_size=64, patch_size=8, mask_ratio=0.75, size=size)


def _spec_mae(size: SizeName) -> Setting:
    return Setting(in_chans=100, img_size=64, mask_ratio=0.75, size=size)


_WINDOW = Setting(in_chans=30, img_size=33, patch_size=2, num_classes=17)
_PINES = Setting(in_chans=20, img_size=145, patch_size=8, num_classes=16)
_PAVIA = Setting(in_chans=20, img_size=128, patch_size=8, num_classes=9)
_DETECTION = Setting(in_chans=102, img_size=32, patch_size=1)
_HERMISTON = Setting(in_chans=154, img_size=5, patch_size=1)
_BAYAREA = Setting(in_chans=224, img_size=15, patch_size=2)
_URBAN = Setting(in_chans=162, img_size=64, patch_size=2, num_endmembers=4)
_WASHINGTON = Setting(in_chans=191, img_size=64, patch_size=2)
_HOUSTON = Setting(in_chans=48, img_size=32, patch_size=1, scale=4)
_SENTINEL = Setting(in_chans=13, img_size=128, patch_size=8, num_tokens=100)


def _fused(setting: Setting, num_tokens: int = 100) -> Setting:
    return replace(setting, num_tokens=num_tokens)


MODELS: dict[str, tuple[Callable[[Setting], nn.Module], Setting]] = {
    "mae_spat_b": (PublishedSpatialMae, _spat_mae("base")),
    "mae_spat_l": (PublishedSpatialMae, _spat_mae("large")),
    "mae_spat_h": (PublishedSpatialMae, _spat_mae("huge")),
    "mae_spec_b": (PublishedSpectralMae, _spec_mae("base")),
    "mae_spec_l": (PublishedSpectralMae, _spec_mae("large")),
    "mae_spec_h": (PublishedSpectralMae, _spec_mae("huge")),
    "cls_spat_base": (SpatialClassifier, _WINDOW),
    "cls_ss_base": (FusedClassifier, _fused(_WINDOW)),
    "cls_ss_large": (FusedClassifier, replace(_fused(_WINDOW), size="large")),
    "cls_ss_huge": (FusedClassifier, replace(_fused(_WINDOW), size="huge")),
    "seg_spat_base": (SpatialSegmentation, _PINES),
    "seg_spat_img64": (SpatialSegmentation, replace(_PAVIA, img_size=64)),
    "seg_ss_base_ip": (FusedSegmentation, _fused(_PINES)),
    "seg_ss_base_pu": (FusedSegmentation, _fused(_PAVIA)),
    "seg_ss_img64": (FusedSegmentation, replace(_fused(_PAVIA), img_size=64)),
    "htd_sa": (TargetDetector, _DETECTION),
    "htd_ss": (TargetDetector, _fused(_DETECTION)),
    "had_sa": (AnomalyDetector, _DETECTION),
    "had_ss": (AnomalyDetector, _fused(_DETECTION)),
    "cd_hermiston_sa": (ChangeDetector, _HERMISTON),
    "cd_hermiston_ss": (ChangeDetector, _fused(_HERMISTON, 144)),
    "cd_farmland_sa": (ChangeDetector, replace(_HERMISTON, in_chans=155)),
    "cd_farmland_ss": (ChangeDetector, replace(_fused(_HERMISTON, 144), in_chans=155)),
    "cd_bayarea_sa": (ChangeDetector, _BAYAREA),
    "cd_bayarea_ss": (ChangeDetector, _fused(_BAYAREA, 144)),
    "um_sa": (Unmixing, _URBAN),
    "um_ss": (Unmixing, _fused(_URBAN, 64)),
    "dn_spatsigma": (SpatialDenoiser, _WASHINGTON),
    "dn_hypersigma": (FusedDenoiser, _fused(_WASHINGTON)),
    "sr_spatsigma_x4": (SpatialUpscaler, _HOUSTON),
    "sr_spatsigma_x8": (SpatialUpscaler, replace(_HOUSTON, scale=8)),
    "sr_hypersigma_x4": (FusedUpscaler, _fused(_HOUSTON, 36)),
    "sr_hypersigma_x8": (FusedUpscaler, replace(_fused(_HOUSTON, 36), scale=8)),
    "ms_cd": (MultispectralChange, _SENTINEL),
}
"""Name -> what makes the model, and the setting that it was published with."""
