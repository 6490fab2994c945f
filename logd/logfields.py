"""What `extra` gives a record of the standard library's logging, as fields of a structured log."""

import logging
import traceback
from typing import Any, Final

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return what `extra` gave the record, and its exception."""
    found = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    if record.exc_info and record.exc_info[0]:
        found["error"] = "".join(traceback.format_exception_only(*record.exc_info[:2])).strip()
        found["traceback"] = logging.Formatter().formatException(record.exc_info)
    return found
