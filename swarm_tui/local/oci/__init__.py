"""Foreign images (OCI): fetched, unpacked safely, made bootable, and kept by name."""
