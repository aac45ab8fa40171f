"""Every error the cluster raises on purpose.

ClusterError
├── SetupFailed           an actor's worker could not be built
├── RunEnded              a task failed in a way that would end every other task too
├── ClusterLost           no actor is left and none may be started
└── PlacementImpossible   the actors asked for do not fit on the machines
"""


class ClusterError(Exception):
    """Anything the cluster raises on purpose."""


class SetupFailed(ClusterError):
    """A worker could not be built; `__cause__` is the original exception where it could be pickled."""

    def __init__(self, cause_type: str, cause_message: str) -> None:
        super().__init__(cause_type, cause_message)  # both, or it would not unpickle
        self.cause_type = cause_type
        self.cause_message = cause_message

    def __str__(self) -> str:
        return f"a worker could not be built: {self.cause_type}: {self.cause_message}"


class RunEnded(ClusterError):
    """Nothing further was handed out; `__cause__` is the original exception where it could be pickled."""

    def __init__(self, cause_type: str, cause_message: str) -> None:
        super().__init__(cause_type, cause_message)  # as above
        self.cause_type = cause_type
        self.cause_message = cause_message

    def __str__(self) -> str:
        return f"the run was ended by {self.cause_type}: {self.cause_message}"


class ClusterLost(ClusterError):
    """No actor is left to run the remaining tasks; what was delivered before stays delivered."""


class PlacementImpossible(ClusterError):
    """The actors asked for do not fit; the message says what is lacking."""
