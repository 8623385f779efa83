"""One small exception tree. Every message says what was received, what was expected and what to do."""

from __future__ import annotations

__all__ = [
    "BadImageError",
    "BadInputError",
    "BadVideoError",
    "CheckpointError",
    "EdgesegError",
    "EngineError",
    "FrameNotFoundError",
    "InferenceError",
    "MissingExtraError",
    "ModelNotFoundError",
    "ModelNotReadyError",
    "ParityError",
    "RepositoryError",
    "ServerError",
    "ServerLostError",
    "ServerTimeoutError",
    "ServerUnavailableError",
    "UnexpectedError",
    "VideoEndedError",
]


class EdgesegError(Exception):
    """Base of every error that a user can cause or mend; commands print it as one line.

    `exit_code` is what a command exits with when this error ends it.
    """

    exit_code = 2


class UnexpectedError(EdgesegError):
    """An error that this package does not know, such as a decoder's own on damaged bytes."""


class BadInputError(EdgesegError, ValueError):
    """An argument, file or array that cannot be used as given."""


class BadImageError(BadInputError):
    """An image file or array that cannot be read or has the wrong size or channels."""


class BadVideoError(BadInputError):
    """A video, folder of frames, camera or stream that cannot be opened or used."""


class FrameNotFoundError(BadInputError, IndexError):
    """A video has no frame of this index, or a camera can no longer give it."""


class CheckpointError(BadInputError):
    """A checkpoint that is missing, truncated, unsafe, not finite or of another architecture."""


class VideoEndedError(EdgesegError):
    """Frames stopped in the middle: a camera vanished, or a file is damaged. What was read is good.

    `frames_read` says how many frames came before.
    """

    def __init__(self, message: str, frames_read: int) -> None:
        super().__init__(message)
        self.frames_read = frames_read


class MissingExtraError(EdgesegError):
    """A command needs a dependency that is not installed; `install` where it needs its own command."""

    def __init__(self, what: str, extra: str, install: str = "") -> None:
        command = install or f"pip install 'edgeseg[{extra}]'"
        super().__init__(f"{what} is not installed: run  {command}")
        self.extra = extra


class RepositoryError(EdgesegError):
    """A model repository that is missing, unreadable, unwritable or inconsistent."""


class ModelNotFoundError(RepositoryError):
    """The repository or server has no model of this name."""


class ParityError(EdgesegError):
    """A graph does not compute what its checkpoint computes; nothing was published."""

    exit_code = 3


class EngineError(EdgesegError):
    """An engine that is installed and cannot be used on this machine, or with this model."""


class InferenceError(EdgesegError):
    """A model refused its inputs or failed while it ran."""


class ServerError(EdgesegError):
    """A server that cannot be started, reached or used."""


class ServerUnavailableError(ServerError):
    """Nobody listens at the address, or the server stayed away for the whole retry budget."""


class ServerLostError(ServerError):
    """A server that was ready has ended, hangs, or lost a process of one of its models: start it again."""

    exit_code = 4


class ServerTimeoutError(ServerError):
    """The server did not answer in time."""


class ModelNotReadyError(ServerError):
    """The server is up but this model is not ready to serve."""
