"""`logger=wandb` writes a real offline run: its file is read back, record by record."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from test_resume import run

BLOCK = 32 * 1024


def records(path: Path) -> Iterator[object]:
    """The protobuf records of a W&B transaction log (a LevelDB log behind a 7-byte header)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    position, pieces = 7, []
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # a header never crosses a block
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0:
            break
        pieces.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            record = Record()
            record.ParseFromString(b"".join(pieces))
            pieces = []
            yield record


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_offline_run_holds_metrics_configuration_and_table(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    extra = ["logger=wandb", f"logger.save_dir={folder}"]
    assert run(folder, extra=extra) == 0
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    history, config = [], {}
    for record in records(log):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            history.append(
                {".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item}
            )
        elif kind == "run":
            config |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "config":
            config |= {i.key: json.loads(i.value_json) for i in record.config.update}
    assert config["rate"] == 0.4
    assert config["model"]["_target_"] == "mln_lightning.models.MetaLabelNet"
    by_epoch = [row for row in history if "val/accuracy" in row]
    assert len(by_epoch) == 4, "one row of validation per epoch"
    assert sum("labels/accuracy" in row for row in history) == 2, "stage two has two epochs"
    results = json.loads((folder / "results.json").read_text())
    (final,) = [row for row in history if "test/accuracy_last" in row]
    assert final["test/accuracy_last"] == pytest.approx(results["metrics"]["test/accuracy_last"])
    (table,) = [row for row in history if "results._type" in row]
    assert table["results._type"] == "table-file"
    shown = json.loads((log.parent / "files" / table["results.path"]).read_text())
    accuracy = f"{100 * final['test/accuracy_last']:.2f} %"
    assert ["test accuracy, last epoch", accuracy] in shown["data"]
