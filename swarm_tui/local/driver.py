"""Which hypervisor a local swarm runs on: Cloud Hypervisor where all of it is there, else QEMU."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from swarm_tui.errors import SetupError
from swarm_tui.local.accel import Mode, choose_accel
from swarm_tui.local.image import build_image
from swarm_tui.local.virtchd import lacks
from swarm_tui.outpost.programs import Say


class Driver(StrEnum):
    """By the names that libvirt's URIs begin with."""

    QEMU = "qemu"
    CH = "ch"

    @property
    def label(self) -> str:
        return "QEMU" if self is Driver.QEMU else "Cloud Hypervisor"


@dataclass(frozen=True, slots=True)
class Choice:
    driver: Driver
    reason: str
    """Why, in a sentence for people."""


def driver_of(uri: str) -> Driver:
    """The one that a libvirt connection leads to."""
    return Driver.CH if uri.partition(":")[0].partition("+")[0] == "ch" else Driver.QEMU


def choose_driver(
    wanted: Literal["auto", "qemu", "ch"],
    occupied: Driver | None,
    *,
    virtchd: Path | None,
    accel: Literal["auto", "kvm", "tcg"],
    cache: Path,
    say: Say,
) -> Choice:
    """The driver for a swarm whose agents, if it has any, run under `occupied` already.

    `virtchd` is the daemon's socket where one is named. Blocks: where all else speaks for Cloud
    Hypervisor, a boot proves KVM, and an image is built for that; some milliseconds if it has
    been before. Raises SetupError when `wanted` cannot be.
    """
    if occupied:
        if wanted not in ("auto", occupied):
            raise SetupError(
                f"The agents of this local swarm run under {occupied.label}",
                f"{Driver(wanted).label} was asked for.",
                "End them first: swarm-tui demo --down.",
            )
        return Choice(occupied, f"{occupied.label}, as its agents are there already.")
    if wanted != "auto":
        return Choice(Driver(wanted), f"{Driver(wanted).label}, as asked for.")
    if accel == "tcg":
        return Choice(Driver.QEMU, "QEMU: software emulation was asked for.")
    if missing := lacks(virtchd):
        told = ", ".join(lack.what for lack in missing)
        return Choice(Driver.QEMU, f"QEMU: for Cloud Hypervisor, this is missing: {told}.")
    proof = choose_accel(build_image(cache, say), cache, accel)
    if proof.mode is Mode.KVM:
        return Choice(Driver.CH, "Cloud Hypervisor: all of it is there, and KVM works.")
    return Choice(Driver.QEMU, f"QEMU: Cloud Hypervisor needs KVM. {proof.reason}")
