"""The five products of one small run, opened without the project's readers."""

import io
import json
import tarfile
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from pyhdf.SD import SD

from pipeline.synth import write_products


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "raw"
    write_products(folder, scenes=5, seed=3)
    return folder


@pytest.fixture(scope="session")
def scenes(out):
    """Per family: what scenes.json says, the file, labels and truth."""
    listed = json.loads((out / "truth" / "scenes.json").read_text())["scenes"]
    return {scene["family"]: _scene(out, scene) for scene in listed}


def _scene(out, scene):
    name = scene["scene_id"]
    with np.load(out / "truth" / f"{name}.npz") as truth:
        arrays = {key: truth[key] for key in truth.files}
    return SimpleNamespace(
        **scene,
        file=out / scene["path"],
        labels=np.load(out / "truth" / "labels" / f"{name}.npy"),
        truth=SimpleNamespace(**arrays),
    )


@pytest.fixture(scope="session")
def l1t(scenes):
    """Member names, the MTL text and the DN (band, y, x) of the L1T archive."""
    scene = scenes["hyperion-l1t"]
    with zipfile.ZipFile(scene.file) as archive:
        names = archive.namelist()
        files = {name: archive.read(name) for name in names}
    return _map_product(names, files)


@pytest.fixture(scope="session")
def l1gst(scenes):
    """The same of the L1GST archive."""
    with tarfile.open(scenes["hyperion-l1gst"].file) as archive:
        members = [member for member in archive if member.isfile()]
        files = {member.name: archive.extractfile(member).read() for member in members}
    return _map_product([member.name for member in members], files)


def _map_product(names, files):
    tiffs = [name for name in names if name.endswith(".TIF")]
    cube, profiles = [], []
    for name in tiffs:
        with rasterio.open(io.BytesIO(files[name])) as file:
            profiles.append(file.profile)
            cube.append(file.read(1))
    (mtl,) = [name for name in names if "_MTL_" in name]
    return SimpleNamespace(
        names=names, tiffs=tiffs, profiles=profiles, dn=np.stack(cube),
        mtl_name=mtl, mtl=files[mtl].decode("ascii"),
    )  # fmt: skip


@pytest.fixture(scope="session")
def l1r(scenes):
    """Member names, texts, attributes and data sets of the L1R archive."""
    scene = scenes["hyperion-l1r"]
    with tempfile.TemporaryDirectory() as folder, tarfile.open(scene.file) as archive:
        names = [member.name for member in archive if member.isfile()]
        archive.extractall(folder, filter="data")
        stem = Path(folder) / scene.product / scene.product
        image, auxiliary = _hdf4(f"{stem}.L1R"), _hdf4(f"{stem}.AUX")
        texts = {end: Path(f"{stem}.{end}").read_text() for end in ("MET", "hdr")}
    return SimpleNamespace(names=names, image=image, auxiliary=auxiliary, **texts)


def _hdf4(path):
    file = SD(path)
    sets = {name: file.select(name) for name in file.datasets()}
    content = SimpleNamespace(
        attributes=file.attributes(),
        data={name: data[:] for name, data in sets.items()},
        set_attributes={name: data.attributes() for name, data in sets.items()},
        types={name: data.info()[3] for name, data in sets.items()},
    )
    file.end()
    return content


@pytest.fixture(scope="session")
def ahsi_products(scenes, tmp_path_factory):
    """File names, RPC, DN and texts of both AHSI products; the archive is unpacked here."""
    root = tmp_path_factory.mktemp("ahsi")
    with tarfile.open(scenes["gf5b"].file) as archive:
        archive.extractall(root, filter="data")
    folders = {"gf5b": next(root.iterdir()), "gf5": scenes["gf5"].file}
    return {name: _ahsi(scenes[name], folder) for name, folder in folders.items()}


@pytest.fixture(params=["gf5b", "gf5"])
def ahsi(request, ahsi_products):
    return ahsi_products[request.param]


def _ahsi(scene, folder):
    suffix = "tif" if scene.platform == "GF5B" else "geotiff"
    rasters = {}
    for part in ("VN", "SW"):
        with rasterio.open(folder / f"{scene.product}_{part}.{suffix}") as file:
            rasters[part] = SimpleNamespace(profile=file.profile, rpcs=file.rpcs, dn=file.read())
    return SimpleNamespace(
        scene=scene,
        folder=folder,
        rasters=rasters,
        names=sorted(path.name for path in folder.iterdir()),
        texts={path.name: path.read_text() for path in folder.glob("*.raw")},
        xml=(folder / f"{scene.product}.xml").read_text(),
    )
