"""The daemon's own id, `ID` in /info: made once for a data-root, so that clients know it again."""

import os
import uuid
from pathlib import Path


def ensure_identity(data_root: Path) -> None:
    """Leave an id (a UUID in text) in `<data-root>/id` if there is none yet."""
    path = data_root / "id"
    if path.exists():
        return
    partial = data_root / ".id.new"
    partial.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    os.replace(partial, path)
