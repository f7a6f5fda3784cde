"""Checks that a TLS certificate and its key can be used."""

from __future__ import annotations

import ssl
from os import PathLike
from pathlib import Path

from symphony.errors import ConfigurationError

__all__ = ("check_certificate",)

_Name = str | PathLike[str]


def check_certificate(certfile: _Name | None, keyfile: _Name | None, password: str | None = None) -> None:
    """Check a certificate chain and its key, before the server starts.

    Args:
        certfile: The chain in PEM, or `None` without TLS.
        keyfile: The key in PEM, or `None` if it is in *certfile*.
        password: The password of the key.

    Raises:
        ConfigurationError: They cannot be used. The message is one line.
    """
    if not certfile:
        if keyfile:
            raise ConfigurationError(
                f"The key {keyfile} has no certificate: give its certificate too, "
                "with --ssl-certfile or ssl_certfile=."
            )
        return
    pem = _read(certfile, "certificate")
    if "-----BEGIN CERTIFICATE-----" not in pem:
        raise ConfigurationError(f"{certfile} is not a certificate in PEM.")
    key = _read(keyfile, "key") if keyfile else pem
    if "PRIVATE KEY-----" not in key:
        if not keyfile:
            raise ConfigurationError(
                f"The certificate {certfile} has no key in its file: give the file of its key too, "
                "with --ssl-keyfile or ssl_keyfile=."
            )
        raise ConfigurationError(f"{keyfile} is not a private key in PEM.")
    encrypted = False

    def ask() -> str:
        # Without this callback, OpenSSL asks for the password on the terminal.
        nonlocal encrypted
        encrypted = True
        return password or ""

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile or None, ask)
    except (OSError, ValueError) as error:
        where = keyfile or certfile
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            problem = f"The key in {where} does not belong to the certificate {certfile}."
        elif encrypted and not password:
            problem = (
                f"The key in {where} is encrypted: decrypt it, or use app.run(ssl_keyfile_password=...)."
            )
        elif encrypted:
            problem = f"The key in {where} cannot be decrypted with this password."
        else:
            problem = f"The certificate {certfile} with the key in {where} cannot be used: {error}."
        raise ConfigurationError(problem) from error


def _read(file: _Name, what: str) -> str:
    try:
        # Some tools write text in other encodings between the PEM blocks.
        return Path(file).read_text("latin-1")
    except OSError as error:
        raise ConfigurationError(f"The {what} {file} cannot be read: {error.strerror}.") from error
