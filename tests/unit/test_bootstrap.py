"""Which hosts there are, and on which of them the local swarm lives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from swarm_tui.bootstrap import local_folder, local_host, make_hypervisors, make_supervisor
from swarm_tui.config import load

LOCAL_URI = "qemu:///system"
FAR = 'uri = "qemu+ssh://lab/system"'


@pytest.mark.parametrize(
    ("configured", "hosts", "local"),
    [
        ("", ["local"], "local"),
        (f'[hosts.lab]\nuri = "{LOCAL_URI}"', ["lab"], "lab"),
        (f"[hosts.lab]\n{FAR}", ["lab", "local"], "local"),
        (f"[hosts.local]\n{FAR}", ["local", "local-swarm"], "local-swarm"),
        (f'[hosts.a]\n{FAR}\n[hosts.b]\nuri = "{LOCAL_URI}"', ["a", "b"], "b"),
    ],
    ids=["none", "the same", "another", "another called local", "two"],
)
def test_the_local_swarm_has_a_host_whatever_is_configured(
    tmp_path: Path, configured: str, hosts: Sequence[str], local: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(configured)
    loaded = load(file=file)
    loaded.paths.make()
    local_folder(loaded.paths).mkdir()
    (local_folder(loaded.paths) / "uri").write_text(LOCAL_URI)

    assert [hypervisor.host for hypervisor in make_hypervisors(loaded)] == hosts
    assert local_host(loaded) == local
    supervisor = make_supervisor(loaded)
    assert supervisor.spawners() == [host for host in hosts if host == local or FAR in configured]
