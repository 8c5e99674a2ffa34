"""File capabilities of a foreign image: they become its programs' own in the guest, never here.

Run under fakeroot it gives them to files of a tree, as far as mke2fs sees it, and becomes the
command behind it: fakeroot keeps extended attributes in memory, and reads none from the file that
owners and modes come from.

    python -m swarm_tui.local.oci.capability FILE COMMAND…
    FILE     a line for each: hexadecimal path, a space, hexadecimal value
"""

from __future__ import annotations

import os
import sys
from typing import Final

ATTRIBUTE: Final = "security.capability"
_LENGTHS: Final = {0x01000000: 12, 0x02000000: 20}
"""By revision (linux/capability.h). The third is for a user namespace, and so for no guest."""
_REVISION: Final = 0xFF000000
_EFFECTIVE: Final = 1


def is_sound(value: bytes) -> bool:
    """Whether a kernel would take it."""
    kind = int.from_bytes(value[:4], "little")
    known = _LENGTHS.get(kind & _REVISION)
    return len(value) == known and not kind & ~(_REVISION | _EFFECTIVE)


def main() -> None:
    with open(sys.argv[1], encoding="ascii") as file:
        for line in file:
            path, value = map(bytes.fromhex, line.split())
            os.setxattr(path, ATTRIBUTE, value, follow_symlinks=False)
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
