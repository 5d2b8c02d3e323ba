"""Which run `resume=` means, and the newest whole checkpoint in it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from agegender.errors import AgeGenderError

AUTO = "auto"  # `./auto` is a folder of that name


def newest_whole(run: Path) -> Path | None:
    """Returns the checkpoint of a run that is furthest in the training, or None if there is no whole one.

    How far one is stands in it: the file's time says less, since clocks can be put back. A damaged one is named in a
    line on standard error, and passed over.

    Args:
        run: The run's folder.
    """
    from agegender.checkpoint import load_whole  # imports torch: `--help` and typing mistakes answer without it

    found: list[tuple[int, int, int, Path]] = []
    for name in ("best.ckpt", "last.ckpt"):  # of two that are as far, `last` was written later, and knows more
        path = run / "checkpoints" / name
        if not path.is_file():
            continue
        try:
            checkpoint = load_whole(path)
        except AgeGenderError as error:
            print(f"warning: {error}; passed over", file=sys.stderr)
            continue
        found.append((checkpoint["global_step"], checkpoint["epoch"], len(found), path))
    return max(found)[-1] if found else None


def find_unfinished(arguments: Sequence[str], config_name: str, conf: Path) -> Path | None:
    """Returns the folder of the run that `resume=auto` continues, or None if it is to start afresh.

    That is the run in `hydra.run.dir`, if the command gives one, even a finished one, of which only the test is left to
    do. Else it is the newest run beside the folder that the command would make, `logs/<name>/`, that left no
    `metrics.json` and isn't at work.

    Args:
        arguments: The command's, without `resume=`.
        config_name: Its primary config.
        conf: Its config folder.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from agegender.run_folder import is_at_work

    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf.resolve()), version_base="1.3"):
        overrides = [argument for argument in arguments if not argument.startswith("-")]
        config = compose(config_name, overrides, return_hydra_config=True)
    folder = Path(config.hydra.run.dir)
    if any(re.match(r"\+*hydra\.run\.dir=", argument) for argument in arguments):
        return folder if _settings(folder).is_file() else None
    begun = [path for path in folder.parent.glob("*") if _settings(path).is_file()]
    runs = [path for path in begun if not (path / "metrics.json").exists()]
    runs.sort(key=lambda path: _settings(path).stat().st_mtime_ns)
    return next((path for path in reversed(runs) if not is_at_work(path)), None)


def _settings(run: Path) -> Path:
    return run / ".hydra" / "overrides.yaml"
