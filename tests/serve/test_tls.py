"""TLS over the wire, with a certificate made here."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from serve.conftest import serving
from triptych import Encoder
from triptych.client import Client
from triptych.errors import EndpointError


def test_a_server_with_a_certificate_speaks_tls_alone(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, trusted = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem"
    certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(trusted)
    with serving({"tiny": [encoder]}, {}, certificate=certificate, private_key=key) as running:
        url = f"https://127.0.0.1:{running.port}"
        context = ssl.create_default_context(cafile=trusted)
        with httpx.Client(verify=context) as connection:
            assert connection.get(f"{url}/health").json()["status"] == "ok"
            found = connection.post(f"{url}/v1/embeddings", json={"input": "hello world"})
            assert len(found.json()["data"][0]["embedding"]) == encoder.widths["dense"]
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{url}/health")
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(f"{running.url}/health")
        with (
            Client(url, retries=0) as client,
            pytest.raises(EndpointError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            client.indexes()
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        with Client(url) as client:
            assert client.indexes() == []
