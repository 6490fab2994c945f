"""What is mounted in a container: paths of the host, volumes, tmpfs; as it was settled when the container was created.

It stands in container.json, so that a later start mounts the same things, whatever became of the containers whose
volumes were taken over.
"""

import msgspec


class Bind(msgspec.Struct, frozen=True, tag="bind", omit_defaults=True):
    """A file or folder of the host. `mode` is the text that `-v` had for it; an empty propagation is rprivate."""

    source: str
    destination: str
    read_only: bool = False
    recursive: bool = True
    read_only_recursive: bool = True
    create_source: bool = False
    propagation: str = ""
    mode: str = ""


class Volume(msgspec.Struct, frozen=True, tag="volume", omit_defaults=True):
    """A volume. One that nobody has named is `anonymous`: it gets a name when the container is made, and goes with it.

    `copy`: if it is empty, it starts with what the image has at the destination. `subpath` is the part of it that is
    mounted. `options` and `labels` are those of a volume that has to be made.
    """

    destination: str
    name: str = ""
    read_only: bool = False
    copy: bool = True
    anonymous: bool = False
    subpath: str = ""
    options: dict[str, str] = {}
    labels: dict[str, str] = {}
    mode: str = ""


class Tmpfs(msgspec.Struct, frozen=True, tag="tmpfs", omit_defaults=True):
    """A tmpfs with mount(8) options."""

    destination: str
    options: tuple[str, ...] = ()


Mounted = Bind | Volume | Tmpfs
