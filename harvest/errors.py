"""Every error this package raises on purpose.

    HarvestError
    ├── InputError                what the user gave is wrong (exit 2)
    │   ├── ConfigError           a study file, or a --set
    │   ├── BenchmarkError        a benchmark file, with its row
    │   ├── PromptError           a prompt that the model cannot take
    │   ├── ModelError            a checkpoint that is missing, damaged or of an unknown family
    │   └── SelectionError        a group, method or neuron set that does not exist or does not fit
    │       └── NeedsRows         a statistic that needs per-question rows, and there are none
    └── RunError                  the work itself failed (exit 1)
        ├── EngineError           the engine could not be opened, or broke
        │   └── WrongNode         a node of the cluster lacks the software, or has another version of it
        ├── CaptureError          counted ≠ planned, a NaN, a layer that did not move
        ├── UnitsFailed           units that were given up after their retries, named
        ├── Interrupted           a signal asked the run to end
        └── StoreError            the store cannot be written or reached: it ends the run
            └── DamagedStore      a file that is missing or not what its commit record says

A message is one sentence: which value, where, and what to do about it.
"""


class HarvestError(Exception):
    """Anything this package raises on purpose."""


class InputError(HarvestError):
    """What the user gave is wrong; nothing was written."""

    retryable = False
    # trying again gives the same answer


class ConfigError(InputError):
    """A study file or an override is wrong; the message starts with file:field."""


class BenchmarkError(InputError):
    """A benchmark file is wrong; the message starts with file:row."""


class PromptError(InputError):
    """A prompt cannot be given to the model."""


class ModelError(InputError):
    """A checkpoint is missing, damaged or of a family that has no probe."""


class SelectionError(InputError):
    """A group, a method or a neuron set does not exist, or does not fit the model."""


class NeedsRows(SelectionError):
    """Per-question rows are needed and the capture has none."""


class RunError(HarvestError):
    """The work failed; what was committed before is kept."""


class EngineError(RunError):
    """The engine could not be opened, or broke."""


class WrongNode(EngineError):
    """A node of the cluster lacks what engines need, or has another version of it than the driver."""

    retryable = False
    # it will not install it by itself


class CaptureError(RunError):
    """A unit's statistics are not what was planned."""

    retryable = False
    # the same texts give the same numbers


class UnitsFailed(RunError):
    """Some units were given up after their retries; the rest is done."""


class Interrupted(RunError):
    """A signal asked the run to end; what ran was finished, the rest was never begun."""


class StoreError(RunError):
    """The store cannot be written or reached."""

    retryable = False
    # every actor writes to the same store
    ends_run = True
    # nothing can be kept, so nothing further is worth computing


class DamagedStore(StoreError):
    """A stored file is missing, or is not what its commit record says."""

    ends_run = False
    # the others are whole
