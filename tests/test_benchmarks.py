"""The benchmark's arithmetic, its meters and its pages; what it finds is not asserted here."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import pages
from benchmarks.goals import epoch_goals
from benchmarks.measure import Cost, count
from benchmarks.profile import INPUT, REST, STEP, Share, named_parts, shares
from benchmarks.published_loop import PublishedLoop
from benchmarks.report import Goal, Table
from benchmarks.savings import STUDENT_FIRST, Way
from benchmarks.scaling import Work, run
from benchmarks.steps import metalabelnet, plain, random_batch
from mln_lightning.data import ImageArrays
from mln_lightning.networks import SmallCNN

SMALL = (1, 8, 8)


@pytest.mark.parametrize(
    ("way", "floor"),
    [
        (Way(), 10 / 3),
        (Way(share=Fraction(1, 2)), 2.8333),
        (Way(share=Fraction(1, 4)), 2.5833),
        (Way(every=2), 2.1667),
        (Way(every=5), 1.4667),
        (Way(options=STUDENT_FIRST), 2.6667),
        (Way(every=5, options=STUDENT_FIRST), 1.3333),
    ],
)
def test_floor(way: Way, floor: float) -> None:
    assert way.floor == pytest.approx(floor, abs=1e-4)


def test_counting_without_computing() -> None:
    """Tensors without content cost what real ones do."""
    found: list[Cost] = []
    for device in ("cpu", "meta"):
        network = SmallCNN(SMALL, 10).to(device)
        step = metalabelnet(network, lean_memory=True, meta_every=2)
        found.append(count(step, random_batch(SMALL, 4, device, 2), steps=2))
    assert found[0] == found[1]
    assert found[0].live_bytes > 0


def test_a_cost_is_that_of_a_mean_step() -> None:
    batch = random_batch(SMALL, 4)
    costs = [count(plain(SmallCNN(SMALL, 10)), batch, steps=n).flops for n in (1, 3)]
    assert costs[0] == costs[1] > 0


def test_goals_of_a_gpu() -> None:
    """Without one nothing is met or missed; the schedule has 44 and 76 epochs."""
    assert [goal.met for goal in epoch_goals(None)] == [None] * 3
    assert "needs a GPU" in str(epoch_goals(None)[0])
    goals = epoch_goals({"plain": 3.0, "ours": 8.0, "fast": 2.0, "published": 15.0})
    values = [goal.value for goal in goals]
    assert values == pytest.approx([15 / 8, 7.5, (44 * 3 + 76 * 2) / 60])
    assert [goal.met for goal in goals] == [False, False, True]
    assert str(Goal("x", 3.0, 2.0, True, "so")) == "x: 3.00 (≤ 2) MISSED\n  why: so"


def test_pages_are_filled(tmp_path: Path) -> None:
    table = Table("title", ("way", "ms"), [("ours", "1"), ("theirs", "2")], "A note.")
    about = {
        "machine": "M",
        "threads": "2",
        "load": "0.1 on 2 cores",
        "torch": "2.9",
        "date": "2026-01-02",
        "commit": "abc",
    }
    (tmp_path / "here.json").write_text(
        json.dumps({"about": about, "tables": {"steps": asdict(table)}})
    )
    page = (
        "before\n<!-- bench here steps -->\nold\n<!-- end -->\nbetween\n"
        "<!-- bench here about -->\n<!-- end -->\nafter\n"
    )
    shown = "| way | ms |\n| --- | ---: |\n| ours | 1 |\n| theirs | 2 |\n\nA note.\n"
    expected = (
        f"before\n<!-- bench here steps -->\n{shown}<!-- end -->\nbetween\n<!-- bench here about "
        "-->\nMeasured on M, 2 threads, load before 0.1 on 2 cores, torch 2.9, 2026-01-02, "
        "commit abc.\n"
        "<!-- end -->\nafter\n"
    )
    assert pages.filled(page, tmp_path) == expected
    assert pages.filled(expected, tmp_path) == expected


def test_pages_show_what_is_kept() -> None:
    shown = [page.read_text() for page in pages.PAGES]
    assert any("<!-- bench " in page for page in shown)
    for page in shown:
        assert pages.filled(page) == page, "run python -m benchmarks.pages"


def event(
    name: str, start: float, end: float, own: float = 0.0, kernels: float = 0.0
) -> SimpleNamespace:
    span = SimpleNamespace(start=start, end=end, elapsed_us=lambda: end - start)
    return SimpleNamespace(
        name=name,
        time_range=span,
        device_type=DeviceType.CPU,
        self_cpu_time_total=own,
        self_device_time_total=kernels,
    )


def test_times_belong_to_the_outermost_part() -> None:
    events = [
        event(f"part: {INPUT}", 0, 1000),
        event("copy", 100, 500, own=400),
        event(f"part: {STEP}", 1000, 10000),
        event("part: tangent", 2000, 7000),
        event("part: label generator", 3000, 4000),
        event("conv", 3100, 3900, own=700, kernels=5000),
        event("conv", 6500, 6900, own=300),
        event("add", 8000, 8100, own=100),
    ]
    found = shares(events, steps=1)  # type: ignore[arg-type]
    assert found == {
        INPUT: Share(1.0, 0.4, 0.0),
        "tangent": Share(5.0, 1.0, 5.0),
        REST: Share(4.0, 0.1, 0.0),
    }


def test_every_part_of_a_step_is_seen() -> None:
    """And what was put around them is gone afterwards."""
    from torch.profiler import ProfilerActivity, profile, record_function

    step, batch = metalabelnet(SmallCNN(SMALL, 10)), random_batch(SMALL, 4)
    step(batch)
    with (
        named_parts(step),
        profile(activities=[ProfilerActivity.CPU]) as profiler,
        record_function(f"part: {STEP}"),
    ):
        step(batch)
    assert list(shares(profiler.events(), 1)) == [
        "encoder",
        "label generator",
        "training forward",
        "virtual gradient and update",
        "meta forward",
        "meta backward",
        "tangent",
        "label gradient",
        "optimisers",
        "conventional backward",
        "epoch means",
        REST,
    ]
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step(batch)
    assert not [event for event in profiler.events() if event.name.startswith("part")]


def test_published_loop_records_every_image() -> None:
    """The last, short batch included, for which the meta batch is cut."""
    shape = (3, 8, 8)
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, *shape), dtype=torch.uint8, generator=draws)
    labels = torch.arange(12) % 10
    train, meta = ImageArrays(pixels[:7], labels[:7]), ImageArrays(pixels[7:], labels[7:])
    loop = PublishedLoop(SmallCNN(shape, 10), train, meta, 4)
    assert loop.epoch() > 0
    assert loop.soft_labels.sum(axis=1) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
def test_two_processes_are_timed() -> None:
    found = run(Work(2, 1, "cpu", batch=4, batches=2, epochs=3))
    assert {kind: len(times) for kind, times in found.items()} == {
        "plain training": 2,
        "MetaLabelNet": 2,
    }
