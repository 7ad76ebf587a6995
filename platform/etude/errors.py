"""The errors that cross folders; everything else is a plain ValueError or a bug."""

import errno
from typing import TypeGuard


class UserError(ValueError):
    """Something the user can mend: the message says what is wrong, where, and what to do.

    Jobs print it as one sentence and exit with code 2; see `etude.cli.guarded`.
    """


class StorageError(UserError, OSError):
    """Storage that cannot be reached, or that refuses: the message is a sentence for the user."""


def is_disk_full(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether a disk is full, or what one may use of it."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


class BadAudio(ValueError):  # noqa: N818
    """One track's bytes are at fault: the track goes to quarantine with this message as its reason.

    Network and permission errors are never this; they stay OSError and are tried again.
    """


class OutOfReach(OSError):  # noqa: N818
    """A file that its source could not bring, although it tried as often as it is told to."""
