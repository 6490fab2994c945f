"""The files of containers: copied in and out, compared with the image, packed, each in a process of its own."""
