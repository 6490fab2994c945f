"""The process that makes a layer's gzip for registries: `python -m logd.images.gzipper KEPT NEW`.

Every registry and client takes gzip; a layer that came as a plain tar is kept in zstd. The result is printed as JSON,
{"digest": "sha256:…", "size": bytes, "diff_id": "sha256:…"}, and is the same whenever it is made.
"""

import hashlib
import json
import os
import sys
import zlib
from typing import Final

from logd.images.kernel import die_with_parent, forbid_new_privileges
from logd.images.packer import NO_LIMITS
from logd.images.tarstream import Source

LEVEL: Final = 6
"""zlib's default, and Go's."""


def compress(kept: str, new: str) -> dict[str, str | int]:
    """Write the gzip of what `kept` decompresses to into the new file `new`."""
    compressor = zlib.compressobj(LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    digest, size = hashlib.sha256(), 0
    with open(kept, "rb", buffering=0) as source, open(new, "xb") as out:

        def write(data: bytes) -> None:
            nonlocal size
            digest.update(data)
            size += len(data)
            out.write(data)

        tar = Source(source.fileno(), NO_LIMITS, copy=lambda piece: write(compressor.compress(piece)))
        diff_id = tar.finish()
        write(compressor.flush())
    return {"digest": f"sha256:{digest.hexdigest()}", "size": size, "diff_id": diff_id}


def main() -> None:
    """Do what argv says."""
    die_with_parent()
    forbid_new_privileges()
    os.umask(0o077)
    print(json.dumps(compress(*sys.argv[1:])), flush=True)


if __name__ == "__main__":
    main()
