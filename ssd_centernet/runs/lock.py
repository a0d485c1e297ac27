"""One training at a time in a run directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ssd_centernet.run_directory import LOCK_NAME


@contextlib.contextmanager
def run_lock(model_dir: str | Path, *, needed: bool = True) -> Iterator[None]:
    """Hold a run directory against other trainings; a killed process lets go of it.

    Two trainings would mix their checkpoints, settings and logs without any error.

    Args:
        model_dir: directory of the run; created if missing.
        needed: False for the processes of a run that write nothing.

    Raises:
        BlockingIOError: another process trains there.
    """
    if not needed:
        yield
        return
    Path(model_dir).mkdir(parents=True, exist_ok=True)
    with open(Path(model_dir) / LOCK_NAME, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise BlockingIOError(
                f"Another training runs in {model_dir} (process {lock.read().strip() or 'unknown'}"
                "). Wait for it, stop it, or choose another --model_dir."
            ) from error
        except OSError:  # A file system without locks: train without.
            pass
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def is_training(model_dir: str | Path) -> bool:
    """Tell whether a process of this machine trains in a directory, without disturbing it.

    Args:
        model_dir: directory of a run.

    Returns:
        False also where the file system has no locks.
    """
    try:
        with open(Path(model_dir) / LOCK_NAME, encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(lock, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:  # No such file, or no locks.
        pass
    return False
