"""The command line: `python -m mln_lightning.run`, or `mln` once installed.

`mln check`, `mln methods` and `mln teacher` are the modules of these names.

Everything that can be refused is refused here, in about a second, before torch is imported.
Exit codes: 0 done; 1 a run failed; 2 the request was wrong; 128 + n stopped by signal n.
"""

from __future__ import annotations

import signal
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mln_lightning import __version__, folders, plugins, search, sweeps
from mln_lightning.claim import InUseError, claimed
from mln_lightning.config import CONFIG_NAME, VERSION_BASE, Job, conf_dir, current_job, plan
from mln_lightning.errors import RunStopped, UserError
from mln_lightning.failure import Failure, describe
from mln_lightning.files import shown
from mln_lightning.launch import first_process, launch, processes_to_start, started_by_others
from mln_lightning.preflight import check
from mln_lightning.stopping import stoppable
from mln_lightning.worker import train

_INDENT = " " * 10  # under the folder, in the report of a sweep
_OTHERS = ("check", "methods", "teacher")  # command lines of their own, by the first word
_PATIENCE = 10.0  # seconds: the loaders of a run that was killed outlive it for a moment


def main() -> None:
    """Entry point; reads `sys.argv` and exits with a code other than 0 if not all went well."""
    if sys.argv[1:2] and sys.argv[1] in _OTHERS:
        sys.exit(import_module(f"mln_lightning.{sys.argv.pop(1)}").main())
    try:
        _main()
    except UserError as error:
        _exit(str(error), 2)
    except KeyboardInterrupt:
        stopped = RunStopped(signal.SIGINT)
        _exit(str(stopped), stopped.exit_code)


def _main() -> None:
    if "--version" in sys.argv[1:]:
        print(f"mln_lightning {__version__}")
        return
    # Hydra's parser takes -m only before or after all overrides; let it stand anywhere.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    args = get_args_parser().parse_args()
    if args.help or args.hydra_help or args.shell_completion or args.config_path:
        plugins.prefer_files(conf_dir())
        _task()
        return
    config_dir = Path(args.config_dir) if args.config_dir else None
    asked = plan(args.overrides, sweep=args.multirun, config_dir=config_dir, check=check)
    if args.cfg or args.info:
        _task()
        return
    if not asked.sweep:
        admit(asked.jobs[0])
        _task()
        return
    if asked.search:
        search.check_possible(asked.jobs[0].cfg, alone=not started_by_others())
        search.trials_of_this_process.cache_clear()
        sweeps.launch(_task, beside=asked.beside)
        found = search.tried()
        tried = plan(args.overrides, sweep=True, config_dir=config_dir, found=found).jobs
        runs = list({job.run_dir: job for job in tried[: len(found)]}.values())
        code = report(runs)
        print("\n".join(search.best_lines(runs)))
        sys.exit(code)
    to_run = admit_sweep(asked.jobs)
    if to_run:
        sweeps.launch(_task, beside=asked.beside)
    sys.exit(report(to_run) if first_process() else 0)


def admit(job: Job) -> None:
    """Look at the folder of a single run, and say what will happen there if it is not empty.

    Raises:
        UserError: the run cannot start there.
    """
    folders.refuse_finished(job)
    folders.check_checkpoint(job)
    if not first_process():
        return
    folders.check_writable(job.run_dir)
    if folders.state(job.run_dir) == "to resume" and job.cfg.ckpt_path in (None, "last"):
        print(f"Resuming from {shown(job.run_dir / folders.LAST_CHECKPOINT)}")


def admit_sweep(jobs: Sequence[Job]) -> list[Job]:
    """Look at the folders of all runs of a sweep before the first starts.

    Returns:
        the jobs that will run, finished ones left out.

    Raises:
        UserError: one of them cannot start, or two would write into one folder.
    """
    for run_dir, times in Counter(job.run_dir for job in jobs).items():
        if times > 1:
            raise UserError(
                f"{times} runs of the sweep would share the folder {shown(run_dir)}; sweep only "
                "over keys that change a result"
            )
    to_run = [job for job in jobs if folders.will_run(job)]
    for job in to_run:
        folders.check_checkpoint(job)
        folders.check_writable(job.run_dir)
    if jobs and first_process():
        resumed = sum(folders.state(job.run_dir) == "to resume" for job in to_run)
        print(
            f"{len(jobs)} runs: {len(jobs) - len(to_run)} finished, {resumed} to resume, "
            f"{len(to_run) - resumed} to do"
        )
    return to_run


def report(jobs: Sequence[Job]) -> int:
    """Print how each run of a sweep ended.

    Returns:
        the exit code: 0 if all are finished, else 1.
    """
    failures = 0
    for job in jobs:
        error = job.run_dir / folders.ERROR
        state = "failed" if error.exists() else folders.state(job.run_dir)
        failures += state != "finished"
        print(f"{state:<9} {shown(job.run_dir)}")
        if error.exists():
            reason = error.read_text().strip().rpartition("\n")[2]
            print(textwrap.fill(reason, 80, initial_indent=_INDENT, subsequent_indent=_INDENT))
    return 1 if failures else 0


@hydra.main(version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=CONFIG_NAME)
def _task(cfg: DictConfig) -> float | None:
    """One run, alone or in a sweep.

    Returns:
        what a search maximises, see `search.objective`; None if the run failed.
    """
    job = current_job(cfg)
    hydra = HydraConfig.get()
    in_sweep = hydra.mode == RunMode.MULTIRUN
    beside = in_sweep and hydra.runtime.choices["hydra/launcher"] != plugins.BASIC
    if in_sweep and not folders.will_run(job):
        return search.objective(job.run_dir)
    first = first_process()
    if first and not beside:  # imports take a while: say what is going on
        print(f"\n{shown(job.run_dir)}" if in_sweep else shown(job.run_dir), flush=True)
    try:
        check(job)
        with stoppable(job.run_dir / folders.LAST_CHECKPOINT):
            if first:
                _run_in_folder(job, patience=-1 if in_sweep else _PATIENCE, beside=beside)
            else:
                _run(job)
    except RunStopped as stopped:
        if beside:  # the sweep's own process says it
            sys.exit(stopped.exit_code)
        _exit(str(stopped), stopped.exit_code)  # SystemExit ends a sweep too
    except InUseError as error:
        _exit(str(error), 2)
    except Exception as error:
        failure = describe(error)
        if first:
            _note(failure, job.run_dir)
        if in_sweep:
            where = f"{shown(job.run_dir)}: " if beside else ""
            print(f"failed: {where}{failure.line}", file=sys.stderr, flush=True)
            return None
        _exit(failure.sentence or failure.trace.rstrip(), failure.exit_code)
    if first and beside:
        print(f"finished: {shown(job.run_dir)}", flush=True)
    return search.objective(job.run_dir)


def _run_in_folder(job: Job, *, patience: float, beside: bool) -> None:
    """Train while no other process does so in the same folder."""
    with claimed(job.run_dir, patience=patience):
        if folders.will_run(job):  # another process may have finished it meanwhile
            with folders.replacing(job.run_dir), sweeps.output(job.run_dir, beside=beside):
                _run(job)


def _run(job: Job) -> None:
    """Train in this process, or in as many as it takes."""
    if count := processes_to_start(job.cfg):
        launch(job, count)
    else:
        train(job)


def _note(failure: Failure, run_dir: Path) -> None:
    """Leave the traceback in the run folder, ending with the sentence if there is one."""
    said = f"\n{failure.sentence}\n" if failure.sentence else ""
    with suppress(OSError):  # a full disk is what we may be reporting
        (run_dir / folders.ERROR).write_text(failure.trace + said)


def _exit(text: str, code: int) -> NoReturn:
    print(text, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
