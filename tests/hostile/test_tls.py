"""TLS and mutual TLS on all three ports; certificates that are renewed under way."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import trustme

from asking import post
from commands import ANY_PORTS, CLEAN, MEDREWARD
from keyring import KeysFile, bearer
from medreward.api.access import tls as tls_module
from medreward.api.access.tls import Tls
from medreward.cli.serve import read_settings
from medreward.clients import AsyncClient, Patience, Refused
from medreward.clients import Tls as ClientTls
from medreward.errors import ConfigurationError
from medreward.proto import reward_pb2 as pb
from serving import LOOPBACK, STUB, Server, running

pytestmark = pytest.mark.slow

TRIPLE = {"question": "Is there a fracture?", "response": "Yes."}
IMPATIENT = Patience(seconds=0.5)


@dataclass(frozen=True)
class Files:
    """PEM files of an authority, a server and a client."""

    folder: Path
    authority: trustme.CA

    @property
    def ca(self) -> Path:
        return self._path("ca.pem")

    def settings(self, mutual: bool = False) -> dict[str, Any]:
        given = {"tls_cert": self._path("server.pem"), "tls_key": self._path("server.key")}
        return given | ({"tls_client_ca": self.ca} if mutual else {})

    def client(self) -> ClientTls:
        return ClientTls(self.ca, self._path("client.pem"), self._path("client.key"))

    def issue(self, who: str) -> str:
        """Writes a new certificate; its number."""
        leaf = self.authority.issue_cert(LOOPBACK)
        self.write(who, leaf)
        return ssl_number(leaf.cert_chain_pems[0].bytes().decode())

    def write(self, who: str, leaf: trustme.LeafCert, beside: bytes = b"") -> None:
        leaf.private_key_pem.write_to_path(self._path(f"{who}.key"))
        self._path(f"{who}.pem").write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems) + beside)

    def _path(self, name: str) -> Path:
        return self.folder / name


def ssl_number(pem: str) -> str:
    """What tells certificates apart."""
    return ssl.PEM_cert_to_DER_cert(pem).hex()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path, trustme.CA())
    made.authority.cert_pem.write_to_path(made.ca)
    for who in ("server", "client"):
        made.issue(who)
    return made


def url(server: Server, door: str) -> str:
    port = server.grpc_port if door == "grpcs" else server.port
    return f"{door}://{LOOPBACK}:{port}"


def shown(port: int, **how: Any) -> str:
    """The certificate that a new connection is shown."""
    return ssl_number(ssl.get_server_certificate((LOOPBACK, port), timeout=60, **how))


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def mutual(files: Files) -> AsyncIterator[Server]:
    async with running(**files.settings(mutual=True)) as server:
        yield server


@pytest.mark.parametrize("door", ["https", "grpcs"])
async def test_a_client_scores_over_tls_with_its_key(files: Files, tmp_path: Path, door: str) -> None:
    keys = KeysFile(tmp_path / "keys.jsonl")
    key = keys.new()
    async with running(keys_file=keys.path, **files.settings()) as server:
        async with AsyncClient(url(server, door), key=key, tls=ClientTls(files.ca)) as client:
            assert (await client.score(None, "Is there a fracture?", ["Yes."]))[0].reward is not None
        for wrong in (key[:-1] + "!", None):
            async with AsyncClient(url(server, door), key=wrong, tls=ClientTls(files.ca)) as client:
                with pytest.raises(Refused, match="unauthenticated"):
                    await client.model()
        async with AsyncClient(url(server, door), key=key, tls=ClientTls(), patience=IMPATIENT) as client:
            with pytest.raises(Refused, match="unreachable"):  # the certificate is of nobody it knows
                await client.model()


@pytest.mark.parametrize("door", ["https", "grpcs"])
async def test_with_mutual_tls_only_clients_with_a_certificate_come_in(files: Files, mutual: Server, door: str) -> None:
    async with AsyncClient(url(mutual, door), tls=files.client()) as client:
        assert (await client.score(None, "Is there a fracture?", ["Yes."]))[0].reward is not None
    stranger = Files(files.folder / "stranger", trustme.CA())
    stranger.folder.mkdir()
    stranger.issue("client")
    theirs = stranger.client()
    for wrong in (ClientTls(files.ca), ClientTls(files.ca, theirs.cert, theirs.key)):
        async with AsyncClient(url(mutual, door), tls=wrong, patience=IMPATIENT) as client:
            with pytest.raises(Refused, match="unreachable"):
                await client.model()


async def test_the_admin_door_has_the_same_tls(files: Files, mutual: Server) -> None:
    ours = files.client()
    with_certificate = ssl.create_default_context(cafile=files.ca)
    without = ssl.create_default_context(cafile=files.ca)
    assert ours.cert
    with_certificate.load_cert_chain(ours.cert, ours.key)
    target = f"https://{LOOPBACK}:{mutual.admin_port}/admin/state"
    async with httpx.AsyncClient(verify=with_certificate, trust_env=False) as client:
        assert (await client.get(target)).json()["ready"] is True
    async with httpx.AsyncClient(verify=without, trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(target)
    with pytest.raises(httpx.TransportError):
        await mutual.admin.get("/admin/state")  # in clear text


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_spoken(files: Files, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=files.ca)
    context.minimum_version = context.maximum_version = version
    async with running(**files.settings()) as server:
        for port in (server.port, server.grpc_port, server.admin_port):
            _, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
            assert writer.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
            writer.close()


def test_nothing_older_than_tls_1_2_is_spoken(files: Files) -> None:
    tls = Tls.of(read_settings(**files.settings()))
    assert tls
    assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_the_metrics_say_how_long_the_certificate_is_good(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the chain, what expires first; a renewed one counts."""
    monkeypatch.setattr(tls_module, "WATCH_SECONDS", 0.02)
    caplog.set_level(logging.INFO, "medreward")
    context = ssl.create_default_context(cafile=files.ca)
    now, authority = datetime.now(UTC), files.authority.cert_pem.bytes()
    late = datetime(2060, 1, 1, tzinfo=UTC)  # written in another form than years before 2050
    for expires, beside in ((now + timedelta(days=30), authority), (late, b"")):
        files.write("server", files.authority.issue_cert(LOOPBACK, not_after=expires), beside)
        async with running(**files.settings()) as server:
            assert await seconds_left(server, context) == pytest.approx((expires - now).total_seconds(), abs=120)
            files.write("server", files.authority.issue_cert(LOOPBACK, not_after=now + timedelta(days=2)))
            await until(lambda: _said(caplog, "certificate read again"))
            assert await seconds_left(server, context) == pytest.approx(2 * 86400, abs=120)
            caplog.clear()


async def seconds_left(server: Server, context: ssl.SSLContext) -> float:
    address = f"https://{LOOPBACK}:{server.admin_port}"
    async with httpx.AsyncClient(verify=context, base_url=address, trust_env=False) as admin:
        text = (await admin.get("/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("medreward_certificate_expiry_seconds ")]
    return float(line.split()[1])


async def test_a_renewed_certificate_is_shown_to_new_connections(
    files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls_module, "WATCH_SECONDS", 0.02)
    async with running(**files.settings()) as server:
        ports = server.port, server.grpc_port, server.admin_port
        context = ssl.create_default_context(cafile=files.ca)
        old = {await asyncio.to_thread(shown, port) for port in ports}
        assert len(old) == 1
        async with httpx.AsyncClient(verify=context, base_url=url(server, "https"), trust_env=False) as kept:
            assert (await kept.post("/score", json=TRIPLE)).status_code == 200

            (files.folder / "server.pem").write_text("not there yet")
            await until(lambda: _said(caplog, "the new certificate is refused; the old one stays"))
            assert {await asyncio.to_thread(shown, port) for port in ports} == old

            new = files.issue("server")

            async def all_new() -> bool:
                return {await asyncio.to_thread(shown, port) for port in ports} == {new}

            await until(all_new)
            assert (await kept.post("/score", json=TRIPLE)).status_code == 200  # its connection stays
        credentials = grpc.ssl_channel_credentials(files.ca.read_bytes())
        async with grpc.aio.secure_channel(f"{LOOPBACK}:{server.grpc_port}", credentials) as channel:
            assert (await STUB(channel).GetModel(pb.GetModelRequest())).ref.name == "fake"


async def _said(caplog: pytest.LogCaptureFixture, event: str) -> bool:
    return any(record.getMessage() == event for record in caplog.records)


async def test_keys_and_mutual_tls_are_both_asked_for(files: Files, tmp_path: Path) -> None:
    keys = KeysFile(tmp_path / "keys.jsonl")
    key = keys.new()
    async with running(keys_file=keys.path, **files.settings(mutual=True)) as server:
        async with AsyncClient(url(server, "https"), tls=files.client()) as client:
            with pytest.raises(Refused, match="unauthenticated"):
                await client.model()
        async with AsyncClient(url(server, "https"), key=key, tls=files.client()) as client:
            assert (await client.model()).name == "fake"


# files that are none


def broken(files: Files) -> dict[str, tuple[dict[str, Any], str]]:
    whole = files.settings()
    rubbish = files.folder / "rubbish.pem"
    rubbish.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    other = files.folder / "client.key"
    missing = files.folder / "missing.pem"
    return {
        "no certificate file": (whole | {"tls_cert": missing}, "tls_cert"),
        "no key file": (whole | {"tls_key": missing}, "tls_key"),
        "no authority's file": (whole | {"tls_client_ca": missing}, "tls_client_ca"),
        "a broken certificate": (whole | {"tls_cert": rubbish}, "tls_cert"),
        "a broken key": (whole | {"tls_key": rubbish}, "tls_key"),
        "a broken authority": (whole | {"tls_client_ca": rubbish}, "tls_client_ca"),
        "another's key": (whole | {"tls_key": other}, "tls_key"),
        "no key": ({"tls_cert": whole["tls_cert"]}, "tls_key"),
        "no certificate": ({"tls_key": whole["tls_key"]}, "tls_cert"),
        "an authority alone": ({"tls_client_ca": files.ca}, "tls_cert"),
    }


@pytest.mark.parametrize(
    "what",
    [
        "no certificate file",
        "no key file",
        "no authority's file",
        "a broken certificate",
        "a broken key",
        "a broken authority",
        "another's key",
        "no key",
        "no certificate",
        "an authority alone",
    ],
)
def test_a_wrong_file_is_refused_by_the_setting_s_name(files: Files, what: str) -> None:
    given, setting = broken(files)[what]
    with pytest.raises(ConfigurationError, match=rf"^setting .*\b{setting}\b"):
        Tls.of(read_settings(**given))


async def test_a_server_with_a_wrong_file_does_not_start(files: Files) -> None:
    process = await asyncio.create_subprocess_exec(
        MEDREWARD,
        "serve",
        *ANY_PORTS,
        "--tls-cert",
        files.settings()["tls_cert"],
        "--tls-key",
        files.folder / "client.key",
        env=CLEAN,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert b"setting tls_key" in said
    assert said.count(b"\n") == 1


async def test_clear_text_is_not_answered_on_a_tls_port(files: Files) -> None:
    async with running(**files.settings()) as server:
        with pytest.raises(httpx.TransportError):
            await post(server, TRIPLE, bearer("x"))
