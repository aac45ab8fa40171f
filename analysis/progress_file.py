"""`progress.json`: what a run that goes on says of itself, and whether whoever reads it may believe it.

The writer counts its lines. Whether it lives is seen from its process where it runs on this host, and from the count's
moving where it runs on another: clocks of two hosts are never compared.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from analysis.run_folder import read_json, write_json
from harvest.errors import Interrupted

NAME = "progress.json"
_EVERY_S = 1.0
# between two lines of one stage and state
_WATCH_S = 12.0
# how long a reader waits for the next line of another host: more than twice what passes between two
_LOOK_S = 0.1
_COUNT, _PERHAPS = (int, type(None)), (int, float, type(None))
_COUNTED: Mapping[str, type | tuple[type, ...]] = {
    "done": _COUNT, "total": _COUNT, "engines": _COUNT, "retries": _COUNT, "quarantined": _COUNT,
    "tokens_done": _PERHAPS, "tokens": _PERHAPS, "elapsed_s": _PERHAPS,
}  # fmt: skip
# by the fleet, all of it; the road counts nothing
_FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "stage": str, "state": str, "host": str, "time": str, "pid": int, "process": _COUNT, "sequence": int,
    **_COUNTED, "tokens_per_s": _PERHAPS, "eta_s": _PERHAPS, "waiting_for": (str, type(None)),
}  # fmt: skip
_AT_WORK = ("running", "draining")
_GOES_ON = (*_AT_WORK, "done", "failed", "begun", "ended")
# the fleet is through with a stage long before the run is
_KEPT = "what was committed is kept, run the same command again"


class ProgressFile:
    """Takes what the road and the fleet say and keeps the newest of it in a file, whole or not at all."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._sequence = 0
        self._written_at = 0.0
        self._said: Mapping[str, object] | None = None

    def __call__(self, said: Mapping[str, object]) -> None:
        """Write it, unless the last line is younger than a second and of the same stage and state."""
        now, last, self._said = self._clock(), self._said, said
        is_new = last is None or (last["stage"], last["state"]) != (said["stage"], said["state"])
        if not is_new and now - self._written_at < _EVERY_S:
            return
        self._written_at = now
        self._sequence += 1
        writer = {
            "pid": os.getpid(),
            "process": _process(os.getpid()),
            "host": socket.gethostname(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "sequence": self._sequence,
        }
        # what cannot be written is missed by who looks on, not by the run
        with suppress(OSError):
            write_json(self._path, {**said, **writer})

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A time in which a stage is done, or found finished."""
        self({"stage": name, "state": "begun"})
        yield
        self({"stage": name, "state": "ended"})

    @contextmanager
    def road(self) -> Iterator[None]:
        """A time in which stages are done; how it ended is the run's last line."""
        try:
            yield
        except BaseException as error:
            self._end("interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "stopped")
            raise
        self._end("finished")

    def _end(self, state: str) -> None:
        if self._said is not None:
            self({**self._said, "state": state})


def read_progress(path: Path, watch_s: float = _WATCH_S) -> dict[str, Any] | None:
    """What the file says, with `alive` and a `summary` of it in words; None if there is no file.

    `alive` is False of a run that ended or died, and None where its process cannot be seen and no new line came while
    it was watched. Raises InputError if the file is not what a run writes.
    """
    if not path.is_file():
        return None
    said = read_json(path, "run", _FIELDS)
    who = f"process {said['pid']} on {said['host']}"
    if said["state"] not in _GOES_ON:
        return _found(said, False, _ending(said["state"]))
    if said["host"] == socket.gethostname():
        if _is_running(said["pid"], said.get("process")):
            return _found(said, True, f"{said['state']}, {who}")
        how = {"draining": "it was interrupted", "failed": "it failed"}.get(said["state"], "it died")
        return _found(said, False, f"{how}, {who} is gone: {_KEPT}")
    newer = _next_line(path, said, watch_s)
    if newer is not None:
        goes_on = newer["state"] in _GOES_ON
        return _found(newer, goes_on, f"{newer['state']}, {who}" if goes_on else _ending(newer["state"]))
    silence = (
        f"cannot be seen from here and said nothing new within {watch_s:g} s (last at {said['time']} by its clock)"
    )
    return _found(said, None, f"{who} {silence}")


def _ending(state: str) -> str:
    return f"{state}: {_KEPT}" if state in ("interrupted", "stopped") else state


def _found(said: dict[str, Any], alive: bool | None, what: str) -> dict[str, Any]:
    return {**said, "alive": alive, "summary": f"{_numbers(said)}; {what}"}


def _next_line(path: Path, said: dict[str, Any], watch_s: float) -> dict[str, Any] | None:
    """The first line after `said`; None if none came."""
    until = time.monotonic() + watch_s
    while time.monotonic() < until:
        time.sleep(_LOOK_S)
        newer = read_json(path, "run", _FIELDS)
        if (newer["pid"], newer["sequence"]) != (said["pid"], said["sequence"]):
            return newer
    return None


def _process(pid: int) -> int | None:
    """When a process was started, in ticks since this machine's start: its number may be another's later.

    None where there is no such process, or the system does not say.
    """
    try:
        # the second field is a name in parentheses, which may hold anything
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    # a zombie has died already
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _is_running(pid: int, process: int | None) -> bool:
    if process is not None:
        return _process(pid) == process
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _numbers(said: Mapping[str, Any]) -> str:
    if any(said.get(name) is None for name in _COUNTED):
        return str(said["stage"])
    parts = [f"{said['stage']} {said['done']}/{said['total']} tasks"]
    if said["tokens"]:
        parts.append(f"{said['tokens_done']:.0f} of {said['tokens']:.0f} tokens")
    if said.get("tokens_per_s") is not None:
        parts.append(f"{said['tokens_per_s']:.0f} tokens/s")
    if said.get("eta_s") is not None and said["state"] in _AT_WORK:
        parts.append(f"about {said['eta_s']:.0f} s left")
    parts.append(f"{said['engines']} engines, {said['retries']} retries, {said['quarantined']} quarantined")
    if said.get("waiting_for"):
        parts.append(f"waiting for {said['waiting_for']}")
    return ", ".join(parts)
