"""What is said about a certificate that cannot be used."""

import subprocess
from pathlib import Path

import pytest
import trustme

from symphony.errors import ConfigurationError
from symphony.transport.native.certificate import check_certificate


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`chain.pem` and its `key.pem`, both in `both.pem`, and `other.pem`, the key of another."""
    monkeypatch.chdir(tmp_path)
    authority = trustme.CA()
    made, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    made.cert_chain_pems[0].write_to_path("chain.pem")
    made.private_key_pem.write_to_path("key.pem")
    made.private_key_and_cert_chain_pem.write_to_path("both.pem")
    other.private_key_pem.write_to_path("other.pem")
    Path("text.pem").write_text("hello")
    Path("folder").mkdir()
    Path("broken.pem").write_text(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n"
    )


@pytest.mark.parametrize(("chain", "key"), [(None, None), ("chain.pem", "key.pem"), ("both.pem", None)])
def test_what_belongs_together_passes(chain: str | None, key: str | None) -> None:
    check_certificate(chain, key)


@pytest.mark.parametrize(
    ("chain", "key", "problem"),
    [
        (None, "key.pem", "The key key.pem has no certificate"),
        ("chain.pem", None, "The certificate chain.pem has no key in its file"),
        ("absent.pem", None, "The certificate absent.pem cannot be read: No such file or directory"),
        ("chain.pem", "absent.pem", "The key absent.pem cannot be read: No such file or directory"),
        ("folder", "key.pem", "The certificate folder cannot be read: Is a directory"),
        ("text.pem", "key.pem", "text.pem is not a certificate in PEM"),
        ("key.pem", "chain.pem", "key.pem is not a certificate in PEM"),
        ("chain.pem", "text.pem", "text.pem is not a private key in PEM"),
        ("chain.pem", "other.pem", "The key in other.pem does not belong to the certificate chain.pem"),
        ("broken.pem", None, "The certificate broken.pem with the key in broken.pem cannot be used: "),
    ],
)
def test_what_does_not_is_refused_in_one_line(chain: str | None, key: str | None, problem: str) -> None:
    """OpenSSL says "PEM lib", and names no file."""
    with pytest.raises(ConfigurationError) as caught:
        check_certificate(chain, key)
    assert str(caught.value).startswith(problem)
    assert "\n" not in str(caught.value)


def test_an_encrypted_key_is_not_asked_for_at_the_terminal() -> None:
    subprocess.run(
        ["openssl", "pkey", "-in", "key.pem", "-aes128", "-passout", "pass:secret", "-out", "locked.pem"],
        check=True,
    )
    check_certificate("chain.pem", "locked.pem", "secret")
    with pytest.raises(ConfigurationError, match=r"The key in locked\.pem is encrypted"):
        check_certificate("chain.pem", "locked.pem")
    with pytest.raises(ConfigurationError, match=r"locked\.pem cannot be decrypted with this password"):
        check_certificate("chain.pem", "locked.pem", "wrong")
