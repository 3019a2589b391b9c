"""Certificates as they stand in Kubernetes' secrets."""

from pathlib import Path

import trustme


def write_certificates(folder: Path) -> Path:
    """Writes ca.crt, and folders with tls.crt and tls.key: `server`, `client` and, of another authority, `stranger`."""
    ours, theirs = trustme.CA(), trustme.CA()
    for name, authority in (("server", ours), ("client", ours), ("stranger", theirs)):
        (folder / name).mkdir(parents=True)
        leaf = authority.issue_cert("127.0.0.1")
        leaf.cert_chain_pems[0].write_to_path(folder / name / "tls.crt")
        leaf.private_key_pem.write_to_path(folder / name / "tls.key")
    ours.cert_pem.write_to_path(folder / "ca.crt")
    return folder


def mutual(certificates: Path) -> list[str]:
    """Returns the flags of a server that asks every client for a certificate."""
    own = certificates / "server"
    files = {"cert": own / "tls.crt", "key": own / "tls.key", "client-ca": certificates / "ca.crt"}
    return [f"--tls-{name}={file}" for name, file in files.items()]


def mount(certificates: Path, root: Path, who: str = "client") -> None:
    """Puts the authority, and the certificate of `who`, where the chart's pods have them."""
    files = {
        "ca/ca.crt": "ca.crt",
        "client/tls.crt": f"{who}/tls.crt",
        "client/tls.key": f"{who}/tls.key",
    }
    for target, source in files.items():
        place = root / "etc/medreward" / target
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((certificates / source).read_bytes())
