"""A policy file: what it may say, and what is refused with which words."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from medreward.errors import ConfigurationError
from medreward.screening.policy import PolicyFile, check_policy, read_policy
from medreward.types import DIMENSIONS
from policies import FINGERPRINT, policy_text

DOCS = Path(__file__).parents[2] / "docs"
RULE = '[[rules]]\nname = "accurate"\nverdict = "allow"\nmeasure = "logit"\ndimension = "accuracy"\nat_least = 0.8\n'


def read(folder: Path, text: str) -> PolicyFile:
    file = folder / "1.toml"
    file.write_text(text)
    return read_policy(file)


def test_policy_is_read_with_the_digest_of_its_bytes(tmp_path: Path) -> None:
    first, second = read(tmp_path, policy_text(RULE)), read(tmp_path, policy_text(RULE) + "# a comment\n")
    assert first.policy == second.policy
    assert first.digest != second.digest
    assert first.policy.rules[0].threshold == 0.8


@pytest.mark.parametrize(
    ("rules", "about"),
    [
        (RULE.replace("at_least", "atleast"), "atleast"),
        (RULE.replace('"allow"', '"unscored"'), "rules.0.verdict"),
        (RULE + "below = 0.2\n", "needs one of below and at_least"),
        (RULE.replace('dimension = "accuracy"\n', ""), "needs a dimension"),
        (RULE + 'flag = "no_image"\n', "either flag or measure"),
        (RULE.replace('"accurate"', '"otherwise"'), "may not be called otherwise"),
        (RULE + RULE, "same name"),
        (RULE + "[departments.radiology]\naccurat = 1.0\n", "accurat"),
        ("", "rules"),
    ],
)
def test_policy_that_is_wrong_is_refused_with_its_place(tmp_path: Path, rules: str, about: str) -> None:
    with pytest.raises(ConfigurationError, match=about):
        read(tmp_path, policy_text(rules))


def test_policy_of_another_model_is_refused(tmp_path: Path) -> None:
    file = read(tmp_path, policy_text(RULE))
    check_policy(file, FINGERPRINT, DIMENSIONS, has_uncertainty=False)
    with pytest.raises(ConfigurationError, match="thresholds do not carry over"):
        check_policy(file, FINGERPRINT.replace("a", "b"), DIMENSIONS, has_uncertainty=True)


def test_policy_that_needs_what_the_model_lacks_is_refused(tmp_path: Path) -> None:
    file = read(tmp_path, policy_text(RULE))
    with pytest.raises(ConfigurationError, match="accuracy, which the model does not have"):
        check_policy(file, FINGERPRINT, ("overall",), has_uncertainty=True)
    unsure = read(tmp_path, policy_text(RULE.replace('"logit"', '"uncertainty"')))
    with pytest.raises(ConfigurationError, match="the model gives none"):
        check_policy(unsure, FINGERPRINT, DIMENSIONS, has_uncertainty=False)


def test_the_schema_for_editors_takes_what_the_server_takes_and_refuses_an_unknown_key() -> None:
    schema = json.loads((DOCS / "policy.schema.json").read_text("utf-8"))
    check = jsonschema.Draft202012Validator(schema)
    good = tomllib.loads(policy_text(f"{RULE}[departments.ward]\naccurate = 0.7"))
    assert not [*check.iter_errors(good)]
    wrong: list[dict[str, object]] = [{"treshold": 1}, {"fingerprint": "sha256:1"}, {"rules": []}, {"departments": 1}]
    for change in wrong:
        assert [*check.iter_errors(good | change)]
