"""A machine's images: blobs, unpacked layers, tags."""
