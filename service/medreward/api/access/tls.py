"""One certificate for all three ports, read again when its files change."""

import asyncio
import logging
import re
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import grpc

from medreward.api.access.keyring import stamp
from medreward.errors import ConfigurationError
from medreward.settings import Settings

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 1.0
PEM_CERTIFICATE: Final = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
EXPLICIT_VERSION, UTC_TIME = 0xA0, 0x17  # tags in a certificate's DER


class Tls:
    """The certificate and its key, for uvicorn as `context` and for gRPC as `grpc_credentials`."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._files = [file for file in (cert, key, client_ca) if file]
        self._seen = self._stamps()
        self._pem = self._read()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._load_into(self.context)
        self._expiry = expiry(cert)

    @classmethod
    def of(cls, settings: Settings) -> "Tls | None":
        """Returns None where no certificate is set. Fails where a file is missing or they do not fit."""
        cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
        if cert and key:
            return cls(cert, key, client_ca)
        for name, given in (("tls_cert", cert), ("tls_key", key)):
            if not given and (cert or key or client_ca):
                raise ConfigurationError(f"setting {name}: is missing: TLS needs both tls_cert and tls_key")
        return None

    def seconds_left(self) -> float:
        """Returns the seconds until the first certificate of the chain expires; below 0 when one has."""
        return self._expiry - time.time()

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Returns credentials that ask for the certificate at each new connection. gRPC asks in a thread of its own."""
        served = self._pem

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal served
            if self._pem is served:
                return None
            served = self._pem
            return served

        return grpc.dynamic_ssl_server_credentials(
            served,
            changed,  # type: ignore[arg-type]  # None: no change
            require_client_authentication=bool(self._client_ca),
        )

    async def watch(self) -> None:
        """Takes new files until it is cancelled. Files that do not belong together (yet) change nothing."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            seen = self._stamps()
            if seen == self._seen:
                continue
            self._seen = seen
            try:
                self._renew()
            except ConfigurationError as error:
                log.error("the new certificate is refused; the old one stays", extra={"reason": str(error)})
            else:
                log.info("certificate read again")

    def _renew(self) -> None:
        pem = self._read()
        self._load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._load_into(self.context)  # what it holds counts for new connections
        self._expiry = expiry(self._cert)
        self._pem = pem

    def _stamps(self) -> list[object]:
        return [stamp(file) for file in self._files]

    def _read(self) -> grpc.ServerCertificateConfiguration:
        pair = _bytes("tls_key", self._key), _bytes("tls_cert", self._cert)
        roots = _bytes("tls_client_ca", self._client_ca) if self._client_ca else None
        return grpc.ssl_server_certificate_configuration([pair], roots)

    def _load_into(self, context: ssl.SSLContext) -> None:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._cert, self._key, password="")  # never asked for on a terminal
        except (ssl.SSLError, ValueError, OSError) as error:
            why = getattr(error, "reason", None)
            which = (
                "tls_key: does not belong to"
                if why == "KEY_VALUES_MISMATCH"
                else "tls_key: holds no PEM key without a passphrase for"
            )
            raise ConfigurationError(f"setting {which} the certificate chain in tls_cert") from None
        if self._client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            try:
                context.load_verify_locations(self._client_ca)
            except (ssl.SSLError, OSError):
                raise ConfigurationError(f"setting tls_client_ca: {self._client_ca} holds no PEM certificate") from None


def expiry(chain: Path) -> float:
    """Returns when the first certificate of this PEM file to expire does so, in seconds since 1970."""
    return min(_not_after(ssl.PEM_cert_to_DER_cert(pem)) for pem in PEM_CERTIFICATE.findall(chain.read_text("latin-1")))


def _not_after(der: bytes) -> float:
    """Returns when one certificate expires. By RFC 5280 it holds, in this order: version, serial, signature, issuer,
    validity (notBefore, notAfter)."""
    certificate = _element(der, 0)[1]
    at = _element(der, certificate)[1]
    if der[at] == EXPLICIT_VERSION:
        at = _element(der, at)[2]
    for _ in ("serial", "signature", "issuer"):
        at = _element(der, at)[2]
    not_before = _element(der, at)[1]
    tag, start, end = _element(der, _element(der, not_before)[2])
    time_format = "%y%m%d%H%M%SZ" if tag == UTC_TIME else "%Y%m%d%H%M%SZ"
    return datetime.strptime(der[start:end].decode("ascii"), time_format).replace(tzinfo=UTC).timestamp()


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """Returns the tag of the element that begins here, where its content begins, and where it ends."""
    size, start = der[at + 1], at + 2
    if size >= 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start])
    return der[at], start, start + size


def _bytes(setting: str, file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"setting {setting}: {file}: {error.strerror}") from None
