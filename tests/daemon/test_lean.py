"""What an idle daemon does not hold."""

import subprocess
import sys


def test_the_daemon_holds_no_authorities_of_the_hosts_that_it_never_asks() -> None:
    program = """
import gc, os, ssl
os.environ["SSL_CERT_FILE"] = "kept"
os.environ.pop("SSL_CERT_DIR", None)
import logd.daemon.__main__
contexts = [one for one in gc.get_objects() if isinstance(one, ssl.SSLContext)]
held = sum(len(one.get_ca_certs()) for one in contexts)
print(os.environ["SSL_CERT_FILE"], "SSL_CERT_DIR" in os.environ, bool(contexts), held)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout == "kept False True 0\n"
