"""`logger=wandb` writes a real offline run: its file is read back, record by record."""

from __future__ import annotations

import csv
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mln_lightning.datasets import digits
from mln_lightning.failure import sentence
from mln_lightning.wandb_pictures import tables_in
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
def test_offline_run_holds_metrics_configuration_and_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    extra = ["logger=wandb", f"logger.save_dir={folder}"]
    assert run(folder, extra=extra) == 0
    assert capfd.readouterr().err == "", "W&B and Lightning have nothing to tell"
    (log,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    history, config, files = [], {}, {}
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
        elif kind == "artifact":
            contents = record.artifact.manifest.contents
            files[record.artifact.name] = {c.path: Path(c.local_path) for c in contents}
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

    for name in ("noise", "moved", "confusion"):
        (picture,) = [row for row in history if f"pictures/{name}._type" in row]
        (file,) = picture[f"pictures/{name}.filenames"]
        assert (log.parent / "files" / file).read_bytes() == (folder / f"{name}.png").read_bytes()
    (kept,) = [kept for name, kept in files.items() if name.endswith("-moved")]
    assert all(path.is_relative_to(folder / "wandb") for path in kept.values())
    moved = json.loads(kept["moved.table.json"].read_text())
    assert moved["columns"] == [
        *("sample", "image", "observed", "corrected", "confidence", "truth"),
    ]
    with (folder / "labels.csv").open() as file:
        exported = {f"row {row['sample']}": row for row in csv.DictReader(file)}
    changed = sum(row["changed"] == "1" for row in exported.values())
    assert len(moved["data"]) == min(50, changed) > 0
    confidences = [row[4] for row in moved["data"]]
    assert confidences == sorted(confidences, reverse=True)
    train = digits().train
    for sample, image, observed, corrected, confidence, truth in moved["data"]:
        row = exported[sample]
        assert observed == row["observed_label"] != corrected == row["corrected_label"]
        assert confidence == pytest.approx(float(row["confidence"]), abs=1e-4)
        assert truth == str(int(train.labels[int(row["sample"])]))
        with Image.open(kept[image["path"]]) as picture:
            pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
        assert torch.equal(pixels[:1], train.images[int(row["sample"])])


def test_tables_stay_where_the_user_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_DATA_DIR", raising=False)
    with tables_in(tmp_path):
        assert os.environ["WANDB_DATA_DIR"] == str(tmp_path)
    assert "WANDB_DATA_DIR" not in os.environ
    monkeypatch.setenv("WANDB_DATA_DIR", "elsewhere")
    with tables_in(tmp_path):
        assert os.environ["WANDB_DATA_DIR"] == "elsewhere"
    assert os.environ["WANDB_DATA_DIR"] == "elsewhere"


def test_an_account_that_is_missing_is_a_sentence() -> None:
    from wandb.errors import UsageError

    said = sentence(UsageError("No API key configured."))
    assert said == "Weights & Biases: No API key configured. logger.offline=true needs no account."
