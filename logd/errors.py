"""Every error a person can meet, with its HTTP status (Docker's choice for the case) and exit code.

    LogdError                 500  the daemon or the system failed
    ├── InvalidParameter      400  the request or setting is wrong; the message says what is accepted
    ├── Unauthorized          401  who asks has not shown who they are
    ├── Forbidden             403  understood and refused
    ├── NotFound              404  no such container, image, …
    ├── NotAcceptable         406
    ├── TooSlow               408  what was to be sent did not come in time
    ├── Conflict              409  the object's state does not allow it
    ├── NotModified           304  already in the state that was asked for (Docker sends no body)
    ├── Unsupported           501  a known feature that this daemon does not have
    └── Unavailable           503  not now; try again

`str(error)` is the `message` of the API's error body, worded for the person who sent the request.
"""


class LogdError(Exception):
    """Something failed that is not the caller's mistake."""

    status = 500
    exit_code = 1


class InvalidParameter(LogdError):
    """The request or setting is wrong; the message names the thing, the value and what is accepted."""

    status = 400
    exit_code = 125


class Unauthorized(LogdError):
    """Who asks has not shown, to us or to a registry, who they are."""

    status = 401


class Forbidden(LogdError):
    """Understood and refused."""

    status = 403


class NotFound(LogdError):
    """There is no such object."""

    status = 404


class NotAcceptable(LogdError):
    """The object can't do that (Docker's choice for, say, a top of a container without a process)."""

    status = 406


class TooSlow(LogdError):
    """The rest of a request did not come in time."""

    status = 408


class Conflict(LogdError):
    """The object's state does not allow it."""

    status = 409


class NotModified(LogdError):
    """The object is already in the state that was asked for."""

    status = 304
    exit_code = 0


class Unsupported(LogdError):
    """A feature that is known and that this daemon does not have."""

    status = 501


class Unavailable(LogdError):
    """Not now; a later try may succeed."""

    status = 503
