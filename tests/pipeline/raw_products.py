"""Small raw products, made by hand after the sensors' documents with rasterio and pyhdf alone."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import rasterio
from pyhdf.SD import SD, SDC
from rasterio.transform import from_origin

ENTITY = "EO1H1930242013205110KF"
AHSI_NAME = "GF5B_AHSI_E13.0_N52.4_20231031_011422_L10000412729"
SHARED = Path(__file__).parents[2] / "../shared/data/raw"

UNCALIBRATED = [b for b in range(1, 243) if not (8 <= b <= 57 or 77 <= b <= 224)]


def hyperion_dn(rows=70, cols=80, *, seed=0):
    """DN (242, rows, cols) int16: positive, unlike in every band; zero where not calibrated."""
    rng = np.random.default_rng(seed)
    dn = rng.integers(50, 4000, (242, rows, cols)).astype("int16")
    dn[np.array(UNCALIBRATED) - 1] = 0
    return dn


def mtl_text(rows=70, cols=80, **changes):
    values = {
        "ACQUISITION_DATE": "2013-07-24", "START_TIME": '"2013 205 09:41:20"',
        "PRODUCT_LINES": rows, "PRODUCT_SAMPLES": cols,
        "SCALING_FACTOR_VNIR": 40, "SCALING_FACTOR_SWIR": 80,
        "SENSOR_LOOK_ANGLE": -2.1345, "SUN_AZIMUTH": -100.5, "SUN_ELEVATION": 30.0,
    } | changes  # fmt: skip
    lines = [f"    {key} = {value}" for key, value in values.items() if value is not None]
    head = ["GROUP = L1_METADATA_FILE", "  GROUP = PRODUCT_METADATA"]
    return "\n".join([*head, *lines, "  END_GROUP = PRODUCT_METADATA", "END"]) + "\n"


def write_tif(path, cube, **profile):
    bands, rows, cols = cube.shape
    path.unlink(missing_ok=True)  # or GDAL removes files beside it as well
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=rows, width=cols, dtype=cube.dtype, **profile
    ) as file:
        file.write(cube)


def write_l1t(
    folder, dn=None, *, level="L1T", suffix="TIF", mtl=True, crs="EPSG:32633",
    corner=(362175, 5809965), bands=range(1, 243), entity=ENTITY, **changes
):  # fmt: skip
    """A product folder of GeoTIFFs in UTM 33 N, corner at 362175 E, 5809965 N."""
    folder.mkdir(parents=True)
    dn = hyperion_dn() if dn is None else dn
    for band in bands:
        write_tif(
            folder / f"{entity}_B{band:03d}_{level}.{suffix}", dn[band - 1][None], crs=crs,
            transform=from_origin(*corner, 30, 30),
        )  # fmt: skip
    if mtl:
        text = mtl_text(*dn.shape[1:], **changes)
        (folder / f"{entity}_MTL_{level}.TXT").write_text(text)
    return folder


def write_l1r(folder, dn=None, *, flags=None, kind=SDC.INT16, one_file=False, nm=1.0, **met):
    """An L1R product folder; image (line, band, sample) in HDF4, and AUX with a smile of 1 nm.

    `one_file`: the data set is named `Image`, the auxiliary ones lie in the same file; `nm`:
    nanometres per unit of wavelength and width.
    """
    folder.mkdir(parents=True)
    dn = hyperion_dn() if dn is None else dn
    bands, rows, cols = dn.shape
    flags = np.zeros((bands, rows, cols), "u1") if flags is None else flags
    centre = 400 + 8.0 * np.arange(bands)[:, None] + np.linspace(-1, 1, cols)
    image = (dn.transpose(1, 0, 2), kind)
    tables = {
        "Spectral Center Wavelengths": ((centre / nm).astype("f4"), SDC.FLOAT32),
        "Spectral Bandwidths": (np.full((bands, cols), 11 / nm, "f4"), SDC.FLOAT32),
        "Gain Coefficients": (np.ones((bands, cols), "f4"), SDC.FLOAT32),
        "Flag Mask": (np.ascontiguousarray(flags.transpose(1, 0, 2)), SDC.UINT8),
    }
    if one_file:
        write_hdf(folder / f"{ENTITY}.L1R", {"Image": image} | tables)
    else:
        write_hdf(folder / f"{ENTITY}.L1R", {f"{ENTITY}.L1R": image})
        write_hdf(folder / f"{ENTITY}.AUX", tables)
    values = {
        "PRODUCT_UL_CORNER_LAT": 52.5, "PRODUCT_UL_CORNER_LON": 12.9,
        "PRODUCT_UR_CORNER_LAT": 52.5, "PRODUCT_UR_CORNER_LON": 13.1,
        "PRODUCT_LL_CORNER_LAT": 52.3, "PRODUCT_LL_CORNER_LON": 12.9,
        "PRODUCT_LR_CORNER_LAT": 52.3, "PRODUCT_LR_CORNER_LON": 13.1,
        "START_TIME": '"2013 205 09:41:20"',
    } | met  # fmt: skip
    lines = [f"{key} = {value}" for key, value in values.items() if value is not None]
    (folder / f"{ENTITY}.MET").write_text("\n".join(lines))
    return folder


def write_hdf(path, datasets):
    file = SD(str(path), SDC.WRITE | SDC.CREATE)
    for name, (values, kind) in datasets.items():
        data = file.create(name, kind, values.shape)
        data[:] = np.ascontiguousarray(values)
        data.endaccess()
    file.end()


def ahsi_dn(rows=70, cols=80, *, seed=1):
    return np.random.default_rng(seed).integers(1, 4000, (330, rows, cols)).astype("uint16")


def write_ahsi(
    folder,
    dn=None,
    *,
    name=AHSI_NAME,
    ext="tif",
    swapped=False,
    separator=",",
    columns=2,
    counts=(150, 180),
    swir=None,
    origin=(0, 0),
    interleave="band",
    **xml,
):
    """An AHSI product folder; `swapped` word order, separator and columns as GF-5 has them.

    `counts` of VNIR and SWIR bands; `swir`: an SW raster of its own, its pixel (0, 0) where the
    pixel `origin` (row, column) of VN is. `interleave`: delivered products have bands one by one.
    """
    folder.mkdir(parents=True)
    dn = ahsi_dn() if dn is None else dn
    rows, cols = dn.shape[1:]
    swir = dn[counts[0] :] if swir is None else swir
    for stem, cube, place in (("VN", dn[: counts[0]], (0, 0)), ("SW", swir, origin)):
        write_tif(folder / f"{name}_{stem}.{ext}", cube, interleave=interleave)
        (folder / f"{name}_{stem}.rpb").write_text(rpb_text(rows, cols, origin=place))
    steps = {150: 4.3, 180: 8.4, 76: 8.6, 90: 16.8}  # nm
    for detector, count, first in (("VNIR", counts[0], 387.0), ("SWIR", counts[1], 1009.0)):
        step = steps[count]
        gain = np.linspace(0.09, 0.03, count)
        if detector == "SWIR":
            gain[42:45] = [-0.0002, -0.0004, 0.0]
        tables = {
            "RadCal": np.stack([gain, np.full(count, 0.5)], axis=1),
            "Spectralresponse": np.stack(
                [first + step * np.arange(count), np.full(count, step + 0.1)], axis=1
            ),
        }
        for kind, table in tables.items():
            words = f"{detector}_{kind}" if swapped else f"{kind}_{detector}"
            lines = [separator.join(f"{v:.6f}" for v in row[:columns]) for row in table]
            prefix = name.partition("_")[0]
            (folder / f"{prefix}_AHSI_{words}.raw").write_text("\n".join(lines) + "\n")
    values = {
        "SatelliteID": name.partition("_")[0], "SensorID": "AHSI",
        "BandsCount": sum(counts), "StartTime": "2023-10-31 11:02:11.250000",
        "SolarAzimuth": 168.2, "SolarZenith": 60.0, "SatelliteZenith": 2.3,
        "LinesInPixels": rows, "SamplesInPixels": cols, "ScaleFactor": 1,
    } | xml  # fmt: skip
    body = "".join(f"<{key}>{value}</{key}>" for key, value in values.items() if value is not None)
    (folder / f"{name}.xml").write_text(f"<ProductMetaData>{body}</ProductMetaData>")
    (folder / f"{name}_Check.xml").write_text("<Check/>")
    return folder


def rpb_text(rows, cols, *, origin=(0, 0)):
    """RPC of a north-up image: sample grows with longitude, line falls with latitude.

    `origin` (row, column): what lies there by the default is pixel (0, 0).
    """
    values = {
        "lineOffset": rows / 2 - 0.5 - origin[0], "sampOffset": cols / 2 - 0.5 - origin[1],
        "latOffset": 52.4,
        "longOffset": 13.0, "heightOffset": 40, "lineScale": rows / 2, "sampScale": cols / 2,
        "latScale": rows / 2 * 0.0003, "longScale": cols / 2 * 0.0004, "heightScale": 500,
    }  # fmt: skip
    terms = {"lineNumCoef": (2, -1.0), "sampNumCoef": (1, 1.0), "lineDenCoef": (0, 1.0),
             "sampDenCoef": (0, 1.0)}  # fmt: skip
    lines = ['satId = "GF5B";', "BEGIN_GROUP = IMAGE"]
    lines += [f"\t{key} = {value};" for key, value in values.items()]
    for key, (place, value) in terms.items():
        numbers = ",\n".join(f"\t\t{value if i == place else 0.0}" for i in range(20))
        lines.append(f"\t{key} = (\n{numbers});")
    return "\n".join([*lines, "END_GROUP = IMAGE", "END;", ""])


def zipped(folder: Path, path: Path, *, prefix=""):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"{prefix}{file.name}")
    return path


def tarred(folder: Path, path: Path, *, prefix="", mode="w:gz"):
    options = {"w:gz": {"compresslevel": 1}, "w:xz": {"preset": 0}}.get(mode, {})
    with tarfile.open(path, mode, **options) as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, f"{prefix}{file.name}")
    return path


def tar_with(path: Path, name: str, *, kind=tarfile.REGTYPE, link=""):
    """A tgz of one member, of any kind and name."""
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        info.size = 4 if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(b"text"))
    return path
