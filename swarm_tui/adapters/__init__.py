"""The world behind the ports: libvirt, SSH, and a simulated swarm."""

import os

# libvirt's library warns on stderr, which would tear the screen, and reads this when it is loaded.
os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")
