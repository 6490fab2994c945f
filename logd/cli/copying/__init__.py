"""`logd cp`: files between a container and this machine, as tar archives over the API."""
