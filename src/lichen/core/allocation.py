"""Memory that a training frees and takes again at every step stays with the process.

glibc gives blocks above a threshold back to the kernel as soon as they are freed, and so every step of a training on a CPU asks
for the same hundreds of megabytes again, page by page: a third of the time of a small model's step. Told not to, it keeps
them in its heap. Elsewhere (macOS, musl) nothing is done.

>>> keep_freed_memory() in (True, False)
True
"""

from __future__ import annotations

import ctypes
import sys

# the parameters' numbers in glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_PAD_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Tell the C library to keep what is freed; whether it could be told."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _PAD_BYTES))
    return all(mallopt(parameter, value) for parameter, value in settings)


if __name__ == "__main__":
    from lichen.selftest import main

    main(__file__)
