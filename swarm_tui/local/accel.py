"""KVM or software emulation for the guests of this machine; see `outpost.accel`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from swarm_tui.local.image import Image
from swarm_tui.outpost import accel
from swarm_tui.outpost.accel import QEMU, Accel, Mode

__all__ = ["QEMU", "Accel", "Mode", "choose_accel"]

ANSWERS: Final = "accel.json"


def choose_accel(image: Image, cache: Path, force: Literal["auto", "kvm", "tcg"] = "auto") -> Accel:
    """As `outpost.accel.choose_accel`, for an image; `cache` remembers what came of it."""
    return accel.choose_accel(image.kernel, image.initrd, cache / ANSWERS, force)
