"""How large a test is: small on every change, at full size in `make soak`."""

import os

__all__ = ("SOAK", "size")

SOAK = os.environ.get("SOAK") == "true"


def size(small: int, *, full: int) -> int:
    """Return how many connections, items or examples a test uses.

    Args:
        small: Enough to break every bound that the test asserts, if the bound did not hold.
        full: For `make soak`.
    """
    return full if SOAK else small
