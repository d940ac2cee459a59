"""The five errors raised on purpose; each says what is wrong, what to do about it, and how the command line exits."""

from __future__ import annotations


class DeployError(Exception):
    """Something is wrong that a user can mend."""

    exit_code = 1

    def __init__(self, what: str, *, fix: str = "") -> None:
        super().__init__(f"{what}\n  fix: {fix}" if fix else what)
        self.what, self.fix = what, fix


class SpecError(DeployError, ValueError):
    """The request is wrong."""

    exit_code = 2


class MissingBackend(DeployError, ImportError):
    """A package, driver or device is absent."""

    exit_code = 3


class ToolError(DeployError, RuntimeError):
    """The exporter, a parser, a builder or a runtime refused; ``log`` keeps the end of what it printed."""

    exit_code = 4

    def __init__(self, what: str, *, fix: str = "", log: str = "") -> None:
        super().__init__(what, fix=fix)
        self.log = log


class ArtifactError(DeployError):
    """A file is absent, truncated, altered, of another version, or belongs to something else."""

    exit_code = 5
