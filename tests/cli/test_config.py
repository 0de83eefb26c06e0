"""Composition: folder names, checks, and what is said about a command line that is wrong."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import own_images
from mln_lightning.config import Job, conf_dir, hash_suffix, other_overrides, plan
from mln_lightning.errors import UserError
from mln_lightning.preflight import check


def composed(line: str, *, sweep: bool = False):
    return plan(line.split(), sweep=sweep).jobs


def checked(line: str, *, sweep: bool) -> None:
    for job in composed(line, sweep=sweep):
        check(job)


def refusal(line: str, *, sweep: bool = False) -> str:
    with pytest.raises(UserError) as error:
        checked(line, sweep=sweep)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("line", "folder"),
    [
        ("", "digits/sym-0.4/metalabelnet/seed-0"),
        ("noise=asym rate=0.4", "digits/asym-0.4/metalabelnet/seed-0"),
        ("rate=0.40 seed=3 model=cross_entropy", "digits/sym-0.4/cross_entropy/seed-3"),
        ("noise=none", "digits/none/metalabelnet/seed-0"),
        ("overwrite=true download=true data_dir=x", "digits/sym-0.4/metalabelnet/seed-0"),
        ("hydra.sweep.dir=a hydra.sweep.subdir=b", "../a/b"),
        ("trainer=cpu data_seed=1", "digits/sym-0.4/metalabelnet/seed-0-dd6296cb"),
    ],
)
def test_folder(line: str, folder: str) -> None:
    assert composed(line)[0].run_dir.resolve() == Path("outputs", folder).resolve()


def test_hash_is_sha256_of_the_sorted_other_overrides() -> None:
    # printf 'data_seed=1\ntrainer=cpu' | sha256sum
    assert hash_suffix(["trainer=cpu", "rate=0.2", "data_seed=1"]) == "-dd6296cb"
    assert hash_suffix(["rate=0.2", "seed=1", "noise=asym"]) == ""


@given(
    st.permutations(["data_seed=1", "+model.x='a b'", "trainer=cpu", "seed=4", "model.lr=[1,2]"])
)
@settings(max_examples=20, deadline=None)
def test_hash_ignores_order(overrides: list[str]) -> None:
    assert hash_suffix(overrides) == hash_suffix(sorted(overrides))


def test_last_override_of_a_key_counts() -> None:
    assert other_overrides(["a.b=1", "a.b=2"]) == ["a.b=2"]


def test_single_run_and_sweep_agree_on_folders() -> None:
    lines = ["noise=asym", "data_seed=2", "trainer.max_epochs=3"]
    (single,) = plan(lines).jobs
    (swept,) = plan(lines, sweep=True).jobs
    assert single.run_dir == swept.run_dir


def test_sweep_is_the_product_in_order() -> None:
    jobs = composed("noise=sym,asym rate=0.2,0.4 seed=0,1", sweep=True)
    seen = [(job.choices["noise"], job.cfg.rate, job.cfg.seed) for job in jobs]
    assert seen == list(itertools.product(["sym", "asym"], [0.2, 0.4], [0, 1]))


def test_command_line_wins_over_a_group_file() -> None:
    assert composed("")[0].cfg.num_meta == 180
    assert composed("num_meta=60")[0].cfg.dataset.num_meta == 60


def test_environment_names_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLN_DATA_DIR", "/elsewhere")
    assert composed("")[0].cfg.data_dir == "/elsewhere"
    monkeypatch.delenv("MLN_DATA_DIR")
    assert composed("")[0].cfg.data_dir == "data"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("rat=0.3", ["'rat'", "did you mean 'rate'", "noise"]),
        ("+rat=0.3", ["'rat'", "did you mean 'rate'"]),
        ("noise=asim", ["noise=asim", "did you mean 'asym'", "none"]),
        ("nois=asym", ["'nois'", "did you mean 'noise'"]),
        ("model/netwrk=x", ["did you mean 'model/network'"]),
        ("model.virtal_lr=1", ["did you mean 'model.virtual_lr'", "+model.virtal_lr"]),
        ("virtual_lr=1", ["did you mean 'model.virtual_lr'"]),
        ("trainer.max_epoch=3", ["did you mean 'trainer.max_epochs'", "+trainer.max_epoch="]),
        ("dataset.info.nam=x", ["did you mean 'dataset.info.name'"]),
        ("rate.x=1", ["rate"]),
        ("zzz=1", ["'zzz'", "root keys"]),
        ("noise", ["cannot read 'noise'", "key=value"]),
        ("noise=sym,asym", ["-m"]),
        ("~noise", ["exactly one noise"]),
        ("noise=[sym]", ["exactly one noise"]),
        ("trainer=null", ["~trainer"]),
        ("rate=abc", ["rate=abc", "Float"]),
        ("seed=0.5", ["seed=0.5", "Integer"]),
        ("rate=1", ["rate=1.0", "[0, 1)"]),
        ("rate=-0.1", ["[0, 1)"]),
        ("rate=nan", ["[0, 1)"]),
        ("seed=-1", ["seed=-1"]),
        ("data_seed=-1", ["data_seed=-1"]),
        ("noise=none rate=0.4", ["noise=none", "0.4"]),
        ("precision=bf16-mixd", ["did you mean 'bf16-mixed'"]),
        ("precision=16-true", ["not supported", "16-mixed"]),
        ("tf32=high", ["tf32=high"]),
        ("trainer.devices=0", ["trainer.devices=0", "from 1"]),
        ("trainer.devices=two", ["trainer.devices=two", "[0,1]"]),
        ("trainer.num_nodes=0", ["trainer.num_nodes=0", "1 or more"]),
        ("trainer.strategy=fsdp", ["fsdp", "whole of the parameters", "trainer.strategy=ddp"]),
        ("trainer.strategy=deepspeed_stage_2", ["deepspeed_stage_2", "whole of the parameters"]),
        ("trainer.strategy=ddp_spawn", ["ddp_spawn", "starts its processes itself"]),
        ("trainer.strategy=ddp_notebook", ["ddp_notebook", "starts its processes itself"]),
        ("trainer.strategy=ddp_find_unused_parameters_true", ["every parameter", "=ddp"]),
        ("trainer.strategy=dp", ["trainer.strategy=dp is not supported; use", "=ddp"]),
        ("+trainer.sync_batchnorm=true", ["sync_batchnorm", "synchronises batch-norm itself"]),
        ("num_meta=9", ["num_meta=9", "10 classes"]),
        ("num_meta=1257", ["num_meta=1257", "1437", "1256 or less"]),
        ("noise=asym dataset.info.num_classes=8", ["class 8", "8 classes"]),
    ],
)
def test_refusal(line: str, words: list[str]) -> None:
    text = refusal(line)
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize("line", ["num_meta=10", "num_meta=1256", "rate=0", "rate=0.999"])
def test_limits_are_allowed(line: str) -> None:
    check(composed(line)[0])


def test_a_bad_value_is_found_before_the_whole_grid_is_composed() -> None:
    checked: list[float] = []

    def refuse(job: Job) -> None:
        checked.append(job.cfg.rate)
        if job.cfg.rate > 0.5:
            raise UserError("too high")

    line = "rate=0.1,0.6 seed=0,1,2 data_seed=0,1,2"
    with pytest.raises(UserError, match="too high"):
        plan(line.split(), sweep=True, check=refuse)
    assert len(checked) == 1 + 2 + 2 + 1  # of 18


def test_one_bad_combination_is_found_in_a_sweep() -> None:
    assert "did you mean 'asym'" in refusal("noise=sym,asim seed=0,1", sweep=True)
    assert "[0, 1)" in refusal("rate=0.2,1.2", sweep=True)
    assert "model.virtual_lr" in refusal("model.virtal_lr=1,2", sweep=True)


def options() -> list[tuple[str, str]]:
    """Every option of every group in conf/, as (group, option)."""
    files = sorted(conf_dir().rglob("*.yaml"))
    paths = (file.relative_to(conf_dir()).with_suffix("") for file in files)
    found = [(str(path.parent), path.name) for path in paths if path != Path("config")]
    found = [entry for entry in found if entry[0] != "model/shared"]  # what methods build on
    found = [entry for entry in found if not entry[0].startswith("hydra/")]  # of sweeps
    return [("data@dataset" if group == "data" else group, option) for group, option in found]


@pytest.mark.parametrize(("group", "option"), options())
def test_every_option_composes(group: str, option: str, tmp_path: Path) -> None:
    """Alone, on top of the defaults; a preset with the pair it is named after."""
    overrides = [f"{group}={option}"]
    if group == "experiment":
        overrides += ["seed=0", "noise=asym"]  # not the whole grid
    for kind, named_after in (("preset", "dataset"), ("tuned", "experiment")):
        if group == kind:
            known = [name for other, name in options() if other == named_after]
            first = max((name for name in known if option.startswith(f"{name}_")), key=len)
            model = option.removeprefix(f"{first}_")
            overrides = [f"{named_after}={first}", f"model={model}", "seed=0", "noise=asym"]
            overrides = overrides if kind == "tuned" else overrides[:2]
    if group == "dataset":
        overrides += own_images.choices(tmp_path).get(option, [])
    (job, *_) = plan(overrides).jobs
    assert job.choices.get(group, "default") == option
    text = OmegaConf.to_yaml(job.cfg)
    assert "${" not in text
    assert "???" not in text
    check(job)


def test_the_options_found_are_those_of_the_tree() -> None:
    found = options()
    on_disk = [p for p in conf_dir().rglob("*") if p.suffix in {".yaml", ".yml"}]
    shared = [p for p in on_disk if p.parent.name == "shared"]
    assert len(shared) == 2
    of_sweeps = [p for p in on_disk if p.is_relative_to(conf_dir() / "hydra")]
    assert len(of_sweeps) == 6  # test_plugins.py
    # config.yaml is no option either
    assert len(found) == len(set(found)) == len(on_disk) - len(shared) - len(of_sweeps) - 1
    assert {("logger", "csv"), ("logger", "wandb"), ("trainer", "cpu")} <= set(found)
