"""Checkpoints in a bucket, or another folder, beside those of the run folder."""

import logging
import shutil
from pathlib import Path

from hypersigma.checkpoint import STATE_FILE, CheckpointError, open_whole, whole_folder
from storage.places import UNFINISHED, Folder, Place, place_of

logger = logging.getLogger(__name__)


class Mirror:
    """Copies of a run's checkpoints elsewhere: a machine that is lost takes no run with it.

    `state.json` is sent last, so a copy that has one is whole.

    Args:
        run: Run folder.
        url: `s3://bucket/prefix` or a folder, of this run alone.

    Raises:
        SchemaError: A URL of another kind.
    """

    def __init__(self, run: Path, url: str) -> None:
        self._folder = run / "checkpoints"
        self._place: Place = place_of(url)

    def send(self) -> None:
        """Send the checkpoints that are not there, and remove those that are gone here.

        What goes wrong is only told: the run has its own copies, and the next call tries again.
        """
        try:
            here = {path.name for path in self._folder.glob("step-*")}
            there = set(self._place.names())
            for name in sorted(here):
                if f"{name}/{STATE_FILE}" not in there:
                    self._send(name)
            for file in sorted(there, key=lambda file: not file.endswith(STATE_FILE)):
                if file.startswith("step-") and file.partition("/")[0] not in here:
                    self._place.remove(file)
        except Exception as error:  # whatever a server answers
            logger.warning("checkpoints were not sent to %s: %s; training goes on",
                           self._place, error)  # fmt: skip

    def fetch(self) -> None:
        """Bring the newest whole checkpoint here, if it is newer than those that are.

        Raises:
            OSError: The place cannot be read.
        """
        names = self._place.names()
        whole = sorted(name.split("/")[0] for name in names if name.endswith(f"/{STATE_FILE}"))
        here = sorted(path.name for path in self._folder.glob("step-*"))
        for name in reversed(whole):
            if here and name <= here[-1]:
                return
            with whole_folder(self._folder / name) as folder:
                for file in (one for one in names if one.startswith(f"{name}/")):
                    Folder(folder).take(file.partition("/")[2], self._place, file)
                shutil.rmtree(folder / UNFINISHED)
            try:
                open_whole(self._folder / name)
            except CheckpointError as error:
                logger.warning("skipped a torn checkpoint of %s: %s", self._place, error)
                shutil.rmtree(self._folder / name)
                continue
            logger.info("fetched %s from %s", name, self._place)
            return

    def _send(self, name: str) -> None:
        source = Folder(self._folder)
        files = [f"{name}/{file}" for file in Folder(self._folder / name).names()]
        for file in sorted(files, key=lambda file: file.endswith(f"/{STATE_FILE}")):
            self._place.take(file, source, file)
