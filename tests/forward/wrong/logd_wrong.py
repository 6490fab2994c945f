"""A plugin that breaks a forwarder's counter, the one that LOGD_WRONG_COUNTER names: each time a batch is settled
`delivered` has a byte less than there was, or `dropped` one more.
"""

import os
from typing import Any

from logd.forward.delivery import Delivery

_settle = Delivery._settle


def settle(self: Delivery, items: Any, batch: Any, records: int) -> Any:
    rest = _settle(self, items, batch, records)
    progress = self.file.progress
    if os.environ["LOGD_WRONG_COUNTER"] == "delivered":
        progress.delivered -= 1
    else:
        progress.dropped["wrong"] = progress.dropped.get("wrong", 0) + 1
    self.file.save()
    return rest


Delivery._settle = settle  # type: ignore[method-assign]
