"""Scores for feature-dependent noise: `python -m mln_lightning.teacher dataset=<option>`.

Trains networks on the *clean* labels of a data set and writes what they say of images they have
not seen, to `outputs/<dataset>/teacher/seed-<n>[-<hash>]/scores.npz`. A run takes the file with
`noise=teacher noise.scores=<file>`. Overrides are those of a run with `model=cross_entropy`.
Exit codes: 0 done; 1 an unforeseen error; 2 the request was wrong; 128 + n stopped by signal n.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from mln_lightning import folders
from mln_lightning.config import Job, plan
from mln_lightning.errors import RunStopped, UserError
from mln_lightning.failure import sentence
from mln_lightning.files import shown
from mln_lightning.launch import processes_to_start, started_by_others
from mln_lightning.preflight import check
from mln_lightning.stopping import stoppable

SCORES = "scores.npz"
_FOLDER = (
    "hydra.sweep.subdir='${hydra.runtime.choices.dataset}/teacher/"
    "seed-${seed}${hash_suffix:${hydra.overrides.task}}'"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point.

    Args:
        arguments: of the command line; None = `sys.argv`.

    Returns:
        the exit code.
    """
    text = (__doc__ or "").split("\n\n")[1]
    parser = argparse.ArgumentParser("python -m mln_lightning.teacher", description=text)
    parser.add_argument("--config-dir", type=Path, help="a folder of further config files")
    parser.add_argument("overrides", nargs="*", help="key=value, as for mln_lightning.run")
    request = parser.parse_args(arguments)
    try:
        job = admitted(request.overrides, request.config_dir)
        print(shown(job.run_dir), flush=True)  # imports take a while: say what is going on
        with stoppable(job.run_dir / SCORES):
            _train(job)
    except UserError as error:
        return _say(str(error), 2)
    except RunStopped as stopped:
        return _say(str(stopped), stopped.exit_code)
    except Exception as error:
        if (said := sentence(error)) is not None:
            return _say(said, 2)
        traceback.print_exc()
        return 1
    return 0


def admitted(overrides: Sequence[str], config_dir: Path | None = None) -> Job:
    """Compose the request and look at its folder, before torch is imported.

    Raises:
        UserError: it cannot be met.
    """
    given = ["model=cross_entropy", "noise=none", _FOLDER, *overrides]
    jobs = plan(given, sweep=True, config_dir=config_dir, check=check).jobs
    if len(jobs) != 1:
        raise UserError("one teacher is trained at a time; leave out sweeps and what makes them")
    job = jobs[0]
    for group, option in (("model", "cross_entropy"), ("noise", "none")):
        if job.choices.get(group) != option:
            raise UserError(
                f"{group}={job.choices.get(group)} cannot be chosen here: a teacher is trained "
                f"with {group}={option}; leave {group} out"
            )
    if processes_to_start(job.cfg) or started_by_others():
        raise UserError("a teacher is trained by one process; use trainer.devices=1")
    path = job.run_dir / SCORES
    if path.exists() and not job.cfg.overwrite:
        raise UserError(f"{shown(path)} is there already; overwrite=true replaces it")
    folders.check_writable(job.run_dir)
    return job


def _train(job: Job) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as in a run
    from mln_lightning.crossfit import write_scores  # imports torch

    path = job.run_dir / SCORES
    accuracy = write_scores(job.cfg, path)
    print(f"accuracy on images that the network has not seen: {100 * accuracy:.2f} %")
    print(f"use the scores with noise=teacher noise.scores={shown(path)}")


def _say(text: str, code: int) -> int:
    print(text, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
