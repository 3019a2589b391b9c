"""What keeps account of the decisions of one server, as its settings say: drift and the shadow."""

from random import Random

from medreward.engine.engine import Engine
from medreward.errors import ConfigurationError
from medreward.screening.drift import Drift
from medreward.screening.policies import Policies
from medreward.screening.samples import read_reference
from medreward.screening.second_server import SecondServer
from medreward.screening.shadow import Record, Second, SecondPolicy, Shadow, Until


def open_drift(engine: Engine) -> Drift | None:
    """Returns the drift that is watched, None where that is off; fails with a ConfigurationError."""
    settings = engine.settings
    if settings.drift == "off":
        return None
    file = settings.drift_reference
    reference = read_reference(file, engine.serving.ref.fingerprint) if file else []
    random = Random()  # noqa: S311  # it draws places and orders, and guards nothing
    drift = Drift(settings.drift_window, settings.drift_false_alarms, reference, random, settings.drift_mix)
    engine.metrics.watch_drift(drift)
    return drift


def open_shadow(engine: Engine, policies: Policies) -> Shadow | None:
    """Returns the shadow, None where none is asked for; fails with a ConfigurationError."""
    settings = engine.settings
    if not (settings.shadow_policy or settings.shadow_url):
        return None
    if not settings.shadow_until:
        raise ConfigurationError(
            "setting shadow_until: a shadow needs an end: give a date such as 2027-01-31 or a number of decisions"
        )
    until = Until.of(settings.shadow_until)
    record = Record(settings.shadow_file) if settings.shadow_file else None
    second: Second
    if settings.shadow_url:
        key_file, policy = settings.shadow_key_file, settings.shadow_policy
        second = SecondServer(settings.shadow_url, key_file, policy, engine.images.store.get, engine.metrics)
    else:
        second = SecondPolicy(*policies.find(settings.shadow_policy or ""))
    return Shadow(second, settings.shadow_share, until, engine.metrics, record)
