"""What `helm test` asks: is it the right model, does it score its golden triples as it should, is a wrong key refused?

MEDREWARD_KEY holds a key of the scope `score`, MEDREWARD_CLIENT_CERT and _KEY name the files of a certificate to show,
where the server asks for them. The model's own files say what the golden triples are.
"""

import argparse
import os
import ssl
import sys
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import httpx

from medreward.artifacts.golden import GoldenTriple, read_golden, tolerance
from medreward.engine.files import find
from medreward.settings import Settings
from medreward.types import DIMENSIONS, Runtime

WRONG_KEY = f"mr_{'0' * 16}_wrong"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--fingerprint", help="the one that the chart's values name")
    parser.add_argument("--no-keys", action="store_true", help="the server asks for none")
    given = parser.parse_args()
    trust = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE"))
    if certificate := os.environ.get("MEDREWARD_CLIENT_CERT"):
        trust.load_cert_chain(certificate, os.environ["MEDREWARD_CLIENT_KEY"])
    headers = {} if given.no_keys else {"authorization": f"Bearer {os.environ['MEDREWARD_KEY']}"}
    with httpx.Client(base_url=given.url, headers=headers, verify=trust, trust_env=False, timeout=60) as client:
        problems = [*wrong_model(client, given.model, given.fingerprint), *wrong_scores(client, given.model)]
        if not given.no_keys:
            problems += wrong_key(client)
    for problem in problems:
        print(f"FAILED: {problem}", flush=True)
    sys.exit(bool(problems))


def wrong_model(client: httpx.Client, ref: str, named: str | None) -> list[str]:
    """Returns what is wrong with the served fingerprint."""
    served = answer(client.get("/v1/model"))["fingerprint"]
    wanted = {"the values": named, "the model's files": find(Settings(model=ref))[1].fingerprint}
    print(f"fingerprint: {served}")
    return [
        f"{who} say {given}, and {served} is served" for who, given in wanted.items() if given not in (None, served)
    ]


def wrong_scores(client: httpx.Client, ref: str) -> list[str]:
    """Returns the golden triples whose logits are not the golden ones."""
    folder, manifest = find(Settings(model=ref))
    triples = read_golden(folder / "golden.json")
    runtime = Runtime.of(answer(client.get("/v1/model"))["runtime"])
    scales = [calibration.scale for calibration in manifest.calibration.values()]
    allowed = tolerance([triple.logits for triple in triples], [runtime], scales)
    problems = []
    for place, triple in enumerate(triples):
        apart = difference(triple, answer(client.post("/v1/score", json=body(triple)))["results"][0]["logits"])
        print(f"golden triple {place}: {apart:.2e} from the golden logits, {allowed:.0e} allowed")
        if not apart <= allowed:
            problems.append(f"golden triple {place} is {apart} from its logits")
    return problems


def wrong_key(client: httpx.Client) -> list[str]:
    """Returns a problem unless a wrong key is refused."""
    status = client.get("/v1/model", headers={"authorization": f"Bearer {WRONG_KEY}"}).status_code
    print(f"a wrong key: {status}")
    return [] if status == 401 else [f"a wrong key is answered with {status}, not 401"]


def answer(reply: httpx.Response) -> Any:
    if reply.status_code != 200:
        sys.exit(f"FAILED: {reply.request.url} answers {reply.status_code}: {reply.text[:500]}")
    return reply.json()


def body(triple: GoldenTriple) -> dict[str, Any]:
    image = b64encode(triple.image).decode() if triple.image else None
    return {"image": image, "question": triple.question, "response": triple.response}


def difference(triple: GoldenTriple, logits: dict[str, float | None]) -> float:
    """Returns the largest difference to the golden logits; infinity where one of the two has none."""
    pairs: Sequence[tuple[float | None, float | None]] = [
        (wanted, logits[d]) for d, wanted in zip(DIMENSIONS, triple.logits, strict=True)
    ]
    return max(
        (float("inf") if a is None or b is None else abs(a - b) for a, b in pairs if (a, b) != (None, None)), default=0
    )


if __name__ == "__main__":
    main()
