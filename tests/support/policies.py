"""Screening policies that tests make."""

from pathlib import Path

FINGERPRINT = f"sha256:{'a' * 64}"


def policy_text(
    rules: str, name: str = "strict", version: str = "1", fingerprint: str = FINGERPRINT, head: str = ""
) -> str:
    """Returns the TOML of a policy. `head` holds further keys of the policy itself."""
    return f'name = "{name}"\nversion = "{version}"\nfingerprint = "{fingerprint}"\n{head}\n{rules}'


def threshold(name: str, verdict: str, at_least: float, dimension: str = "accuracy", measure: str = "logit") -> str:
    """Returns a rule with one threshold."""
    return (
        f'[[rules]]\nname = "{name}"\nverdict = "{verdict}"\nmeasure = "{measure}"\ndimension = "{dimension}"\n'
        f"at_least = {at_least}\n"
    )


def publish(folder: Path, text: str, name: str = "strict", version: str = "1") -> Path:
    """Writes a version of a policy into a folder of policies and returns its file."""
    file = folder / name / f"{version}.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file
