"""Certificates that a test makes."""

import os
import ssl
from pathlib import Path

import trustme

__all__ = ("Certificate",)


class Certificate:
    """A certificate for localhost on disk, and clients that trust it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        made = authority.issue_cert("localhost", "127.0.0.1")
        self.certfile = str(folder / "cert.pem")
        self.keyfile = str(folder / "key.pem")
        for index, blob in enumerate(made.cert_chain_pems):
            blob.write_to_path(self.certfile, append=index > 0)
        made.private_key_pem.write_to_path(self.keyfile)
        # For programs in Node.
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        self.environment = {**os.environ, "NODE_EXTRA_CA_CERTS": str(folder / "authority.pem")}
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)

    @property
    def options(self) -> dict[str, str]:
        return {"ssl_certfile": self.certfile, "ssl_keyfile": self.keyfile}
