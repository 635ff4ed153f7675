"""What a run rests on, compared with what it was when it began: no run is taken for one of other data. No torch."""

from __future__ import annotations

from contextlib import suppress

from errors import DataError
from experiments.data.registry import data_fingerprint
from experiments.folder.parent import refuse_other_weights
from experiments.folder.run_folder import RunFolder
from experiments.schema import Config
from run_format import PROVENANCE


class PresentData:
    """The data fingerprints that configs would give now. Runs of the same data are listed once."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], str | None] = {}

    def fingerprint(self, config: Config) -> str | None:
        """None where only a run can tell, or where there is no root that fits."""
        data = config.data
        splits = (data.train_split, data.eval_split, data.train_images, data.eval_images)
        key = (data.dataset, data.root, data.reader, *splits)
        if key not in self._known:
            self._known[key] = None
            with suppress(DataError):  # a launch that needs the data says so
                self._known[key] = data_fingerprint(config)
        return self._known[key]

    def differ(self, config: Config, recorded: str) -> bool:
        """Whether data can be seen to be others than the ``recorded`` ones; data that are not here are no others."""
        return self.fingerprint(config) not in (None, recorded)


def refuse_other_origin(folder: RunFolder, config: Config, present: PresentData) -> None:
    """Refuses to take a run for one that would begin with other data or initial weights, as they are now.

    Data are listed where the run has begun. Raises ConfigError or DataError.
    """
    if config.init:
        refuse_other_weights(folder, config.init, folder.path.parent)
    recorded = folder.read_json(PROVENANCE).get("data_fingerprint")
    if recorded and present.differ(config, str(recorded)):
        raise DataError(
            f"{folder.id} is of other data (fingerprint {recorded}) than data.root={config.data.root} holds now "
            f"({present.fingerprint(config)}); give another runs_dir for runs on these data"
        )
