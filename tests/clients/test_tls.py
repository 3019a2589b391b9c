"""Over TLS, where both sides show a certificate."""

import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from clients.canned import MODEL, canned, right_answer
from medreward.clients import AsyncClient, Patience, Refused, Tls
from medreward.proto import reward_pb2 as pb
from medreward.proto import reward_pb2_grpc

IMPATIENT = Patience(seconds=0.5)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """One certificate for everybody."""
    folder = tmp_path_factory.mktemp("tls")
    ca, cert, key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(ca)
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    return Tls(ca=ca, cert=cert, key=key)


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
    assert tls.ca
    ca, cert, key = (Path(file).read_bytes() for file in (tls.ca, tls.cert, tls.key))
    return grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)


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
