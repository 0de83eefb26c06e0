"""The command line: `python -m mln_lightning.check dataset=…`, a look at the data before a run.

Takes what `mln_lightning.run` takes, and reads what it would read. Exit codes: 0 ready to train; 2
the request was wrong, or the data must be mended first.
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.progress import Progress

from mln_lightning.config import Job, plan
from mln_lightning.errors import UserError
from mln_lightning.failure import sentence
from mln_lightning.files import write_atomically
from mln_lightning.preflight import check

if TYPE_CHECKING:
    from mln_lightning.data import LabeledImages, NoisyLabelDataModule, Splits
    from mln_lightning.data.findings import Findings
    from mln_lightning.data.scan import Scan

_OUTPUTS = Path("outputs")


def main() -> None:
    """Entry point; reads `sys.argv` and exits with a code other than 0 if a run would fail."""
    parser = ArgumentParser(
        prog="python -m mln_lightning.check",
        description="Look at a data set before training on it; takes what mln_lightning.run takes.",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as dataset=digits")
    parser.add_argument("--config-dir", type=Path, help="folder of further config files")
    arguments = parser.parse_intermixed_args()
    try:
        problems = report(single_job(arguments.overrides, arguments.config_dir))
    except UserError as error:
        _exit(str(error), 2)
    except KeyboardInterrupt:
        _exit("Stopped.", 130)
    except Exception as error:
        text = sentence(error)
        if text is None:
            raise
        _exit(text, 2)
    if problems:
        _exit("\n".join(["Not ready to train:", *problems]), 2)
    folder = [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]
    command = ["python", "-m", "mln_lightning.run", *folder, *arguments.overrides]
    print(f"Ready to train: {shlex.join(command)}")


def single_job(overrides: Sequence[str], config_dir: Path | None) -> Job:
    """Compose and check one run.

    Args:
        overrides: `key=value` strings of the command line.
        config_dir: a folder of further config files.

    Raises:
        UserError: the overrides are wrong, or ask for a sweep.
    """
    sweep = UserError("this asks for a sweep, but only the data of one run can be checked")
    jobs: list[Job] = []

    def one_at_most(job: Job) -> None:  # a sweep would take long to compose
        if jobs:
            raise sweep
        check(job)
        jobs.append(job)

    if plan(overrides, config_dir=config_dir, check=one_at_most).sweep:
        raise sweep
    return jobs[0]


def report(job: Job) -> list[str]:
    """Read the data set of a run, and print what is found.

    Args:
        job: composed and checked.

    Returns:
        why it cannot run, a sentence each; empty if it can.

    Raises:
        Exception: the data set cannot be read.
    """
    from hydra.utils import instantiate  # the first of those that import torch

    from mln_lightning.data.findings import look, without_unreadable
    from mln_lightning.report import WIDTH, facts, screen

    console = Console(highlight=False)
    console.width = min(console.width, WIDTH)
    build = instantiate(job.cfg.dataset, _partial_=True)
    noise = instantiate(job.cfg.noise)
    data: NoisyLabelDataModule = build(noise=noise)
    with waiting(console, "reading"):
        splits = data.source() if data.verify is None else data.source(verify=data.verify)
    scans = scan_all(splits, workers=data.num_workers, console=console)
    unreadable = sum(len(scan.problems) for scan in scans.values())

    problems = []
    if unreadable and data.on_bad_image == "error":
        problems.append(
            f"unreadable images: {unreadable:,}; mend them, or leave them out with "
            "dataset.on_bad_image=skip"
        )
    used = without_unreadable(splits, scans) if data.on_bad_image == "skip" else splits
    # The rest of what a run does, but for what it would write or has been done here.
    trial: NoisyLabelDataModule = build(
        noise=noise,
        source=lambda: used,
        verify=None,
        cache_dir=None,
        on_bad_image="error",
        duplicates="drop" if data.duplicates == "drop" else "ignore",
    )
    with waiting(console, "comparing"):
        problem = try_out(trial)
        sets = None if problem else trial.parts
        findings = look(splits, scans, data.info, data.cut, used=used, sets=sets)
    known = facts(
        findings,
        data.cut,
        noise=None if noise is None else _noise_option(job),
        dropped=data.duplicates == "drop",
        listed=write_unreadable(findings, job) if unreadable else None,
    )
    for part in screen(findings, known):
        console.print(part)
    return problems if problem is None else [*problems, problem]


def try_out(data: NoisyLabelDataModule) -> str | None:
    """Set up the data as a run does.

    Returns:
        what a run would say of it; None if all is well.
    """
    try:
        data.setup("fit")
    except Exception as error:
        text = sentence(error)
        if text is None:
            raise
        return text
    return None


def waiting(console: Console, what: str) -> AbstractContextManager[object]:
    """Show on a terminal that something takes its time."""
    return console.status(what) if console.is_terminal else nullcontext()


def scan_all(splits: Splits, *, workers: int, console: Console) -> dict[str, Scan]:
    """Decode every image of every part once, under a bar if there is a terminal.

    Args:
        splits: parts of a data set.
        workers: threads that decode.
        console: where the bar shows.
    """
    from mln_lightning.data.scan import scan

    def scanned(images: LabeledImages, bar: Progress, name: str) -> Scan:
        task = bar.add_task(f"reading {name}", total=len(images))
        return scan(images, workers=workers, progress=lambda n: bar.advance(task, n))

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        return {name: scanned(images, bar, name) for name, images in splits.parts().items()}


def write_unreadable(findings: Findings, job: Job) -> Path:
    """List the unreadable images of all parts, one in a line after the part's name and a tab.

    Returns:
        the file, in the folder ``outputs``.
    """
    path = _OUTPUTS / f"unreadable-{job.choices['dataset']}.txt"
    lines = [
        f"{name}\t{image}\n" for name, part in findings.parts.items() for image in part.unreadable
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(lines))
    return path


def _noise_option(job: Job) -> str:
    rate = "" if job.cfg.rate is None else f" rate={job.cfg.rate}"
    return f"noise={job.choices['noise']}{rate}"


def _exit(text: str, code: int) -> NoReturn:
    sys.stdout.flush()
    print(text, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
