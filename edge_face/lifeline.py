"""What every child process does first and last: it ends with its parent, and leaves nobody behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable

from edge_face.messages import Channel

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def live(serve: Callable[[Channel], None]) -> None:
    """Serve the socket whose number is the first argument, until the parent closes it."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # a camera's program may leave orphans, which piped.Program.close reaps
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        serve(Channel(socket.socket(fileno=int(sys.argv[1]))))
    # Threads blocked in a driver and native destructors must not delay the end.
    sys.stderr.flush()
    os._exit(0)
