"""The ranking of what the engine answered, the same at both doors."""

from medreward.errors import Code, RequestError
from medreward.ranking import Ranking, ranking
from medreward.types import Scored, ScoreResponse


def ranked(response: ScoreResponse) -> Ranking:
    """Returns how the responses of the one item stand to each other. Refuses weights that make no reward."""
    scored = [result if isinstance(result, Scored) else None for result in response.results]
    if any(result and result.reward is None for result in scored):
        detail = "a weight is on a dimension that the model has not, so that there is no reward to rank by"
        raise RequestError(Code.INVALID_FIELD, detail, "/weights")
    return ranking(
        [result.reward if result else None for result in scored],
        [result.logits if result else None for result in scored],
        response.weights,
    )
