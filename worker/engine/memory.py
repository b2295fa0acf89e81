"""How the C library treats memory that torch gives back."""

import ctypes

_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
"""Numbers of `mallopt` in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Keep blocks of up to 32 MB for the next tensor instead of handing them back to the system.

    Otherwise each batch faults its pages in again: 440,000 faults and a sixth of the time of scoring
    500 items on the demo's model. Without glibc nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_MMAP_THRESHOLD, 32 * 2**20)
    mallopt(_TRIM_THRESHOLD, 256 * 2**20)
