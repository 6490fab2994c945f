"""`python -m logd.daemon.doctor`, which is what `logd doctor` executes where no daemon answers: the checks of the host.

Prints a JSON list in the form of GET /logd/doctor. Its arguments are the daemon's.
"""

import json
import sys
from collections.abc import Sequence

from logd.api.doctor import host_checks
from logd.config import DaemonConfig
from logd.daemon.config_file import load
from logd.doctor.check import FAIL, OK, Check
from logd.errors import LogdError


def examine(arguments: Sequence[str]) -> list[Check]:
    """Return the checks, by the settings that a daemon with these arguments would have."""
    try:
        config = load(arguments).config
        settings = Check("settings", OK, "understood")
    except LogdError as error:
        config = DaemonConfig()
        settings = Check("settings", FAIL, str(error), "no daemon starts before that is corrected")
    return [settings, *host_checks(config, in_use=False)]


if __name__ == "__main__":
    json.dump([one._asdict() for one in examine(sys.argv[1:])], sys.stdout)
