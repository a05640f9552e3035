"""https: the certificate must be trusted, and be that of the name in the URL, though the address is connected to."""

import datetime
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.images.test_download_addresses import naming, run
from tests.support.image_server import Server, image_bytes, ok, serving

x509 = pytest.importorskip("cryptography.x509")


def certify(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a certificate for ``name`` that signs itself, and its key."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    certificate, secret = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )  # fmt: skip
    return certificate, secret


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve https as shop.example."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certify(tmp_path, "shop.example"))
    with serving(x=ok) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        yield server


def fetch(folder: Path, server: Server, host: str) -> str | None:
    resolver, _ = naming(["127.0.0.1"])
    return run(folder, f"https://{host}:{server.server_address[1]}/x", resolver, allow_private=True)


def test_the_certificate_of_the_name_is_accepted(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert fetch(tmp_path / "1", server, "shop.example") is None
    assert (tmp_path / "1" / "1.png").read_bytes() == image_bytes()
    assert fetch(tmp_path / "2", server, "other.example") == "no_connection"
    assert fetch(tmp_path / "3", server, "127.0.0.1") == "no_connection"
    assert server.hits == {"/x": 1}


def test_a_certificate_that_nobody_trusts_is_refused(tmp_path: Path, server: Server) -> None:
    assert fetch(tmp_path / "1", server, "shop.example") == "no_connection"
    assert not server.hits
