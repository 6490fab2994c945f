"""What registries and the line to them say, fit for a person's terminal: one line, printable, not too long."""

import os
import socket
import ssl
from typing import Final

MAX_WORDS: Final = 1000
"""Characters that are passed on of what a stranger says."""


def printable(text: str) -> str:
    """Return `text` without line breaks, control characters and the like, shortened if need be."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_WORDS])


def told(error: BaseException | None) -> str:
    """Return what an error of the line says."""
    if isinstance(error, TimeoutError):
        return "the registry does not answer (timeout)"
    cause = getattr(error, "os_error", error)
    certificate = getattr(error, "certificate_error", cause)
    if isinstance(certificate, ssl.SSLCertVerificationError):
        text = f"certificate verify failed: {certificate.verify_message}"
    elif isinstance(cause, ssl.SSLError):
        text = f"TLS: {cause.reason or cause}"
    elif isinstance(cause, socket.gaierror):
        text = f"lookup of its address: {cause.strerror}"
    elif isinstance(cause, OSError) and cause.errno:
        text = os.strerror(cause.errno).lower()
    else:
        text = str(error)
    return " ".join(printable(text).split()) or type(error).__name__
