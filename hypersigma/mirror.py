"""Checkpoints in a bucket, or another folder, beside those of the run folder."""

import json
import logging
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hypersigma import checkpoint
from hypersigma.checkpoint import STATE_FILE, CheckpointError, open_whole, whole_folder
from hypersigma.guard import GUARD_FILE
from hypersigma.runfolder import CONFIG_FILE, TrainError, differences, own
from hypersigma.runlog import METRICS_FILE
from storage.places import UNFINISHED, Folder, Place, place_of, put

logger = logging.getLogger(__name__)

BESIDE = (METRICS_FILE, GUARD_FILE)
"""Files of the run folder that go with the checkpoints."""
LAST_SECONDS = 30.0
"""How long a run's end waits for what is still being sent: a scheduler gives little more."""


class Mirror:
    """Copies of a run's checkpoints elsewhere: a machine that is lost takes no run with it.

    A thread of its own sends them, so that training waits for nobody; `state.json` goes last, so
    that a copy that has one is whole. What goes wrong is told, and tried again at the next one.

    Args:
        run: Run folder, claimed.
        url: `s3://bucket/prefix` or a folder, of this run alone.
        identity: Whose run it is.

    Raises:
        SchemaError: A URL of another kind.
    """

    def __init__(self, run: Path, url: str, identity: Mapping[str, Any]) -> None:
        self._run, self._folder = run, run / "checkpoints"
        self._identity = own(identity)
        self._place: Place = place_of(url)
        self._seen: set[str] = set()
        """Checkpoints that were here: those that are gone are removed there, and no others."""
        self._asked, self._end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mirror", daemon=True)

    def fetch(self) -> None:
        """Bring the newest whole checkpoint here if it is newer than those that are, and the best.

        Raises:
            TrainError: The place holds another run; or it cannot be read, and there is no
                checkpoint here to go on from.
        """
        newest = checkpoint.newest(self._run)
        try:
            names = self._place.names()
            if CONFIG_FILE in names:
                self._check(json.loads(self._place.read(CONFIG_FILE)))
            self._fetch(names, -1 if newest is None else int(newest.state["step"]))
        except TrainError:
            raise
        except Exception as error:  # whatever a server answers
            if newest is None:
                raise TrainError(
                    f"train.mirror {self._place} cannot be read: {error}; there is no checkpoint "
                    f"in {self._run}, so the run would begin anew: make the place readable, or "
                    "give another `run` folder and mirror"
                ) from error
            logger.warning("%s cannot be read: %s; training goes on from the run folder",
                           self._place, error)  # fmt: skip

    def sync(self) -> None:
        """Send what is new, soon."""
        self._asked.set()

    def send(self) -> None:
        """Send the checkpoints that are not there as they are here; remove those that went."""
        try:
            here = {path.name for path in self._folder.glob("step-*")}
            self._seen |= here
            there = set(self._place.names())
            put(self._place, CONFIG_FILE, json.dumps(self._identity).encode())
            for name in sorted(here):
                self._send(name, there)
            for file in BESIDE:
                if (self._run / file).is_file():
                    self._place.take(file, Folder(self._run), file)
            gone = {file for file in there if file.partition("/")[0] in self._seen - here}
            for file in sorted(gone, key=lambda file: not file.endswith(STATE_FILE)):
                self._place.remove(file)
        except Exception as error:  # whatever a server answers
            logger.warning("checkpoints were not sent to %s: %s; training goes on",
                           self._place, error)  # fmt: skip

    def __enter__(self) -> Self:
        self._thread.start()
        self.sync()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._asked.set()
        self._thread.join(LAST_SECONDS)
        if self._thread.is_alive():
            logger.warning("%s has not got all after %g s: the same command sends the rest",
                           self._place, LAST_SECONDS)  # fmt: skip

    def _work(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            last = self._end.is_set()
            self.send()
            if last:
                return

    def _check(self, there: Mapping[str, Any]) -> None:
        if found := differences(self._identity, there):
            raise TrainError(
                f"train.mirror {self._place} holds another run: {'; '.join(found)}; give this one "
                "another place, or empty that one"
            )

    def _fetch(self, names: list[str], newest: int) -> None:
        whole = sorted(name.split("/")[0] for name in names if name.endswith(f"/{STATE_FILE}"))
        for name in reversed(whole):
            if int(name.removeprefix("step-")) <= newest:
                return
            if not self._take(name, names):
                continue
            for file in BESIDE:
                if file in names:
                    Folder(self._run).take(file, self._place, file)
            shutil.rmtree(self._run / UNFINISHED, ignore_errors=True)
            best = open_whole(self._folder / name).state.get("best")
            spare = f"step-{best['step']:08d}" if best else name
            if spare in whole and not (self._folder / spare).exists():
                self._take(spare, names)
            every = self._identity["config"]["train"]["keep_every"]
            # The others are no more wanted, but those that stay for ever.
            self._seen |= {one for one in whole if not every or int(one[5:]) % every}
            return

    def _take(self, name: str, names: list[str]) -> bool:
        """Bring a checkpoint here; a torn one is forgotten there, so that it is sent again."""
        with whole_folder(self._folder / name) as folder:
            for file in (one for one in names if one.startswith(f"{name}/")):
                Folder(folder).take(file.partition("/")[2], self._place, file)
            shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
        try:
            open_whole(self._folder / name)
        except CheckpointError as error:
            logger.warning("skipped a torn checkpoint of %s: %s", self._place, error)
            shutil.rmtree(self._folder / name)
            self._place.remove(f"{name}/{STATE_FILE}")
            return False
        self._seen.add(name)
        logger.info("fetched %s from %s", name, self._place)
        return True

    def _send(self, name: str, there: set[str]) -> None:
        state = f"{name}/{STATE_FILE}"
        try:
            mine = (self._folder / state).read_bytes()
            if state in there:
                if self._place.read(state) == mine:
                    return
                self._place.remove(state)
            files = [f"{name}/{file}" for file in Folder(self._folder / name).names()]
            for file in sorted(files, key=lambda file: file == state):
                self._place.take(file, Folder(self._folder), file)
        except FileNotFoundError:
            if (self._folder / name).exists():
                raise  # else it was pruned meanwhile
