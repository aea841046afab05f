"""One self-contained page about a finished demo, and its numbers as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage import html, store
from storage.index import read_index

CLASSIFIERS = {
    "both": "spatial + spectral, pretrained",
    "spatial": "spatial, pretrained",
    "spectral": "spectral, pretrained",
    "scratch": "spatial + spectral, from scratch",
}


def summarise(root: Path, timings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collect every number of the page from the files that the commands wrote."""
    repo = store.open_repository(str(root / "store"))
    versions = store.versions(repo)
    index = read_index(store.open_version(str(root / "store"))).to_pandas()
    change = store.diff(repo, "v1", "v2")
    manifest = read_json(root / "shards/manifest.json")
    return {
        "versions": [
            {"tag": v.tag, "scenes": v.scenes, "tiles": v.tiles, "message": v.message}
            for v in versions
        ],
        "diff_v1_v2": {"scenes_added": list(change.scenes_added), "tiles": len(change.tiles_added)},
        "tiles": {
            f"{sensor} {split}": len(part)
            for (sensor, split), part in index.groupby(["sensor", "split"])
        },
        "shards": {
            "files": len(manifest["shards"]),
            "bytes": sum(shard["bytes"] for shard in manifest["shards"]),
        },
        "pretraining": {
            kind: read_json(root / f"runs/{kind}/summary.json") for kind in ("spatial", "spectral")
        },
        "classification": {
            name: read_json(root / f"runs/finetune_{name}/metrics.json") for name in CLASSIFIERS
        },
        "seconds": list(timings),
    }


def write_page(root: Path, timings: Sequence[dict[str, Any]]) -> Path:
    """Write `report/summary.json` and `report/index.html` below `root`; return the page's path."""
    # Matplotlib and rasterio take seconds to load: not before they are needed.
    from scripts import demo_figures as figures

    report = root / "report"
    report.mkdir(exist_ok=True)
    numbers = summarise(root, timings)
    (report / "summary.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    map_json = read_json(next((root / "map").glob("*.json")))
    pictures = {
        "quicklooks": figures.quicklooks(root),
        "splits": figures.split_map(root),
        "spectra": figures.spectra(root),
        "losses": figures.losses(root),
        "confusion": figures.confusion(numbers["classification"]["both"]),
        "map": figures.map_panel(root, map_json),
    }
    uris = {name: figures.as_data_uri(figure) for name, figure in pictures.items()}
    page = report / "index.html"
    page.write_text(compose(numbers, uris), encoding="utf-8")
    return page


def compose(numbers: dict[str, Any], uris: dict[str, str]) -> str:
    """Return the page as HTML."""
    newest = numbers["versions"][-1]
    best = numbers["classification"]["both"]
    parts = [
        "<h1>From raw scenes to a map</h1>",
        "<p class=soft>Synthetic Hyperion and AHSI products with known truth, one landscape; every "
        "number below was measured in this run.</p>",
        html.tiles(
            (f"{best['oa']:.3f}", "overall accuracy, held-out ground"),
            (f"{best['kappa']:.3f}", "kappa"),
            (str(newest["scenes"]), f"scenes in {newest['tag']}"),
            (str(newest["tiles"]), "tiles of 64 x 64"),
            *(
                (f"{run['ratio']:.0%}", f"{kind} loss, last / first")
                for kind, run in numbers["pretraining"].items()
            ),
        ),
        "<h2>Raw scenes</h2><p>As delivered: Hyperion L1T and L1GST lie north-up on a map grid, "
        "L1R and AHSI in sensor geometry.</p>",
        image(uris, "quicklooks"),
        "<h2>Versions</h2>",
        html.table(
            ("version", "scenes", "tiles", "message"),
            ((v["tag"], v["scenes"], v["tiles"], v["message"]) for v in numbers["versions"]),
        ),
        f"<p>v1 to v2 added {html.escape(', '.join(numbers['diff_v1_v2']['scenes_added']))} "
        f"({numbers['diff_v1_v2']['tiles']} tiles) and touched nothing else.</p>",
        image(uris, "splits"),
        "<h2>Spectra, before and after</h2>",
        image(uris, "spectra"),
        "<h2>Pretraining</h2>",
        image(uris, "losses"),
        pretraining_table(numbers["pretraining"]),
        "<h2>Classification</h2><p>Trained on labelled pixels of the training blocks alone, "
        "measured on blocks of ground that no training tile touches. The classes are easy to tell "
        "by their spectra: judge the networks by the controls in the last two rows.</p>",
        classification_table(numbers["classification"]),
        "<div class=figures>",
        image(uris, "confusion"),
        "</div>",
        "<h2>Map</h2>",
        image(uris, "map"),
        "<h2>Time</h2>",
        html.table(
            ("command", "seconds"),
            ((step["command"], step["seconds"]) for step in numbers["seconds"]),
        ),
    ]
    return html.document("HyperSIGMA pipeline: demo", parts)


def pretraining_table(runs: dict[str, Any]) -> str:
    """Return the autoencoders' losses as a table."""
    rows = (
        (
            kind,
            run["steps"],
            f"{run['first_loss']:.4f}",
            f"{run['last_loss']:.4f}",
            f"{run['ratio']:.1%}",
            f"{run['loss_mean_spectrum']:.4f}",
            f"{run['val_loss']:.4f}",
        )
        for kind, run in runs.items()
    )
    head = ("", "steps", "first loss", "last loss", "last / first", "mean spectrum", "held-out")
    return html.table(head, rows)


def classification_table(runs: dict[str, Any]) -> str:
    """Return the classifiers' accuracies as a table, the control last."""
    rows = [
        (CLASSIFIERS[name], f"{run['oa']:.4f}", f"{run['aa']:.4f}", f"{run['kappa']:.4f}")
        for name, run in runs.items()
    ]
    for name, control in runs["both"]["controls"].items():
        numbers = (f"{control[key]:.4f}" for key in ("oa", "aa", "kappa"))
        rows.append((f"control: {name.replace('_', ' ')} of the pixel's spectrum", *numbers))
    return html.table(("classifier", "OA", "AA", "kappa"), rows)


def image(uris: dict[str, str], name: str) -> str:
    """Return the named figure."""
    return html.image(uris[name], name)


def read_json(path: Path) -> Any:
    """Return what a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))
