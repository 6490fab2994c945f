"""How tests have Docker's SDK for Python, whose streams leave their sockets to the garbage collector."""

import pytest

LEAVES_SOCKETS = [
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.usefixtures("collected_sockets"),
]
"""What a module that uses it has as its `pytestmark`."""
