"""The API's certificate, made by the real OpenSSL and read by another implementation."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vmkernel.host.runner import Runner
from vmkernel.state import TlsMaterial
from vmkernel.state.identity import fingerprint, new_identity

UUID = "3f0f6c1e-8f0b-4a53-9d5f-6a9f1a6f0d11"


def _identity() -> TlsMaterial:
    return asyncio.run(new_identity(Runner(), "mica-test", UUID))


def test_an_identity_is_a_self_signed_p256_certificate() -> None:
    material = _identity()
    certificate = x509.load_pem_x509_certificate(material.certificate_pem.encode())
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    certificate.verify_directly_issued_by(certificate)
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "mica-test" in names.get_values_for_type(x509.DNSName)
    assert len(names.get_values_for_type(x509.IPAddress)) == 2
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    serial = certificate.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    assert [attribute.value for attribute in serial] == [UUID]
    assert certificate.not_valid_after_utc.year > 9000
    assert fingerprint(material.certificate_pem) == certificate.fingerprint(hashes.SHA256()).hex()


def test_its_key_belongs_to_it(tmp_path: Path) -> None:
    material = _identity()
    chain = tmp_path / "chain.pem"
    chain.write_text(material.certificate_pem + material.private_key_pem)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain)
    assert _identity().private_key_pem != material.private_key_pem
