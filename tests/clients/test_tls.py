"""Over TLS, where both sides show a certificate."""

import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from clients.canned import MODEL, canned, right_answer
from medreward.api.proto import reward_pb2 as pb
from medreward.api.proto import reward_pb2_grpc
from medreward.clients import AsyncClient, Patience, Refused, Tls

IMPATIENT = Patience(seconds=0.5)

HAS_OPENSSL = bool(shutil.which("openssl") or os.environ.get("CI"))  # where it must be there, its absence is a failure
pytestmark = pytest.mark.skipif(not HAS_OPENSSL, reason="needs openssl to make a certificate")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """One self-signed certificate for everybody."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return Tls(ca=cert, cert=cert, key=key)


async def test_rest(tls: Tls) -> None:
    assert tls.cert
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls.cert, tls.key)
    async with canned(right_answer, tls=context) as server:
        url = server.url.replace("http:", "https:")
        async with AsyncClient(url, tls=tls) as client:
            assert (await client.model()).name == "m"
        for wrong in (None, Tls(ca=tls.ca)):
            async with AsyncClient(url, tls=wrong, patience=IMPATIENT) as client:
                with pytest.raises(Refused, match="unreachable"):
                    await client.model()


class OnlyModel(reward_pb2_grpc.RewardServiceServicer):
    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.Model:  # noqa: N802
        return pb.Model(ref=pb.ModelRef(**MODEL))


def server_credentials(tls: Tls) -> grpc.ServerCredentials:
    assert tls.cert
    assert tls.key
    cert, key = Path(tls.cert).read_bytes(), Path(tls.key).read_bytes()
    return grpc.ssl_server_credentials([(key, cert)], cert, require_client_auth=True)


async def test_grpc(tls: Tls) -> None:
    server = grpc.aio.server()
    reward_pb2_grpc.add_RewardServiceServicer_to_server(OnlyModel(), server)  # type: ignore[no-untyped-call]
    port = server.add_secure_port("127.0.0.1:0", server_credentials(tls))
    await server.start()
    url = f"grpcs://127.0.0.1:{port}"
    async with AsyncClient(url, tls=tls) as client:
        assert (await client.model()).name == "m"
    for wrong in (None, Tls(ca=tls.ca)):
        async with AsyncClient(url, tls=wrong, patience=IMPATIENT) as client:
            with pytest.raises(Refused, match="unreachable"):
                await client.model()
    await server.stop(0)
