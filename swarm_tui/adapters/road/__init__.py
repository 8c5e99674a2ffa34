"""Our own SSH connection to one host, which carries all that we do there.

uri         what a libvirt URI with "+ssh" says
login       logging in, as the user's own ssh would
line        the outpost's process there, and our calls to it
outpost     `ports.Outpost` and `snapshot.Archive`, by that line
road        the connection itself: libvirt's socket, the line, and the ways to guests
"""
