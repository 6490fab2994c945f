"""Image content by digest: blobs, layers, archives, references."""
