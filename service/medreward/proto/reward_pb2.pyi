from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Image(_message.Message):
    __slots__ = ("data", "sha256", "url", "even_frames", "frames")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    EVEN_FRAMES_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    sha256: str
    url: str
    even_frames: int
    frames: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, data: _Optional[bytes] = ..., sha256: _Optional[str] = ..., url: _Optional[str] = ..., even_frames: _Optional[int] = ..., frames: _Optional[_Iterable[int]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("text", "image")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    image: int
    def __init__(self, text: _Optional[str] = ..., image: _Optional[int] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("role", "content", "parts")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    role: str
    content: str
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    def __init__(self, role: _Optional[str] = ..., content: _Optional[str] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("images", "question", "responses", "history", "department")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENT_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    question: str
    responses: _containers.RepeatedScalarFieldContainer[str]
    history: _containers.RepeatedCompositeFieldContainer[Turn]
    department: str
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., question: _Optional[str] = ..., responses: _Optional[_Iterable[str]] = ..., history: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., department: _Optional[str] = ...) -> None: ...

class Options(_message.Message):
    __slots__ = ("too_long", "thinking", "explain", "steps", "step_ends", "viewpoints")
    TOO_LONG_FIELD_NUMBER: _ClassVar[int]
    THINKING_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STEP_ENDS_FIELD_NUMBER: _ClassVar[int]
    VIEWPOINTS_FIELD_NUMBER: _ClassVar[int]
    too_long: str
    thinking: str
    explain: str
    steps: str
    step_ends: _containers.RepeatedScalarFieldContainer[int]
    viewpoints: str
    def __init__(self, too_long: _Optional[str] = ..., thinking: _Optional[str] = ..., explain: _Optional[str] = ..., steps: _Optional[str] = ..., step_ends: _Optional[_Iterable[int]] = ..., viewpoints: _Optional[str] = ...) -> None: ...

class ScoreRequest(_message.Message):
    __slots__ = ("request_id", "items", "weights", "options", "lane", "expect_fingerprint", "viewpoint")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    EXPECT_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    VIEWPOINT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[Item]
    weights: _containers.ScalarMap[str, float]
    options: Options
    lane: str
    expect_fingerprint: str
    viewpoint: str
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., weights: _Optional[_Mapping[str, float]] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., lane: _Optional[str] = ..., expect_fingerprint: _Optional[str] = ..., viewpoint: _Optional[str] = ...) -> None: ...

class Dimensions(_message.Message):
    __slots__ = ("accuracy", "relevance", "comprehensiveness", "creativity", "responsiveness", "overall")
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    RELEVANCE_FIELD_NUMBER: _ClassVar[int]
    COMPREHENSIVENESS_FIELD_NUMBER: _ClassVar[int]
    CREATIVITY_FIELD_NUMBER: _ClassVar[int]
    RESPONSIVENESS_FIELD_NUMBER: _ClassVar[int]
    OVERALL_FIELD_NUMBER: _ClassVar[int]
    accuracy: float
    relevance: float
    comprehensiveness: float
    creativity: float
    responsiveness: float
    overall: float
    def __init__(self, accuracy: _Optional[float] = ..., relevance: _Optional[float] = ..., comprehensiveness: _Optional[float] = ..., creativity: _Optional[float] = ..., responsiveness: _Optional[float] = ..., overall: _Optional[float] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "message", "field")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    field: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., field: _Optional[str] = ...) -> None: ...

class Contribution(_message.Message):
    __slots__ = ("start", "end", "logits", "reward", "error")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    logits: Dimensions
    reward: float
    error: Error
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., logits: _Optional[_Union[Dimensions, _Mapping]] = ..., reward: _Optional[float] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("sentences",)
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    sentences: _containers.RepeatedCompositeFieldContainer[Contribution]
    def __init__(self, sentences: _Optional[_Iterable[_Union[Contribution, _Mapping]]] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("end", "logits", "reward", "error")
    END_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    end: int
    logits: Dimensions
    reward: float
    error: Error
    def __init__(self, end: _Optional[int] = ..., logits: _Optional[_Union[Dimensions, _Mapping]] = ..., reward: _Optional[float] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Steps(_message.Message):
    __slots__ = ("steps",)
    STEPS_FIELD_NUMBER: _ClassVar[int]
    steps: _containers.RepeatedCompositeFieldContainer[Step]
    def __init__(self, steps: _Optional[_Iterable[_Union[Step, _Mapping]]] = ...) -> None: ...

class Aside(_message.Message):
    __slots__ = ("scores", "logits", "uncertainty", "reward", "flags", "error")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    scores: Dimensions
    logits: Dimensions
    uncertainty: Dimensions
    reward: float
    flags: _containers.RepeatedScalarFieldContainer[str]
    error: Error
    def __init__(self, scores: _Optional[_Union[Dimensions, _Mapping]] = ..., logits: _Optional[_Union[Dimensions, _Mapping]] = ..., uncertainty: _Optional[_Union[Dimensions, _Mapping]] = ..., reward: _Optional[float] = ..., flags: _Optional[_Iterable[str]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("item", "response", "scores", "logits", "uncertainty", "reward", "flags", "cached", "error", "explain", "steps", "without_thinking", "viewpoints", "viewpoint_spread", "expert")
    class ViewpointsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ITEM_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    LOGITS_FIELD_NUMBER: _ClassVar[int]
    UNCERTAINTY_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    EXPLAIN_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_THINKING_FIELD_NUMBER: _ClassVar[int]
    VIEWPOINTS_FIELD_NUMBER: _ClassVar[int]
    VIEWPOINT_SPREAD_FIELD_NUMBER: _ClassVar[int]
    EXPERT_FIELD_NUMBER: _ClassVar[int]
    item: int
    response: int
    scores: Dimensions
    logits: Dimensions
    uncertainty: Dimensions
    reward: float
    flags: _containers.RepeatedScalarFieldContainer[str]
    cached: bool
    error: Error
    explain: Explanation
    steps: Steps
    without_thinking: Aside
    viewpoints: _containers.ScalarMap[str, float]
    viewpoint_spread: float
    expert: str
    def __init__(self, item: _Optional[int] = ..., response: _Optional[int] = ..., scores: _Optional[_Union[Dimensions, _Mapping]] = ..., logits: _Optional[_Union[Dimensions, _Mapping]] = ..., uncertainty: _Optional[_Union[Dimensions, _Mapping]] = ..., reward: _Optional[float] = ..., flags: _Optional[_Iterable[str]] = ..., cached: bool = ..., error: _Optional[_Union[Error, _Mapping]] = ..., explain: _Optional[_Union[Explanation, _Mapping]] = ..., steps: _Optional[_Union[Steps, _Mapping]] = ..., without_thinking: _Optional[_Union[Aside, _Mapping]] = ..., viewpoints: _Optional[_Mapping[str, float]] = ..., viewpoint_spread: _Optional[float] = ..., expert: _Optional[str] = ...) -> None: ...

class ModelRef(_message.Message):
    __slots__ = ("name", "version", "fingerprint", "runtime", "evidence")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    fingerprint: str
    runtime: str
    evidence: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., fingerprint: _Optional[str] = ..., runtime: _Optional[str] = ..., evidence: _Optional[str] = ...) -> None: ...

class Timings(_message.Message):
    __slots__ = ("decode_ms", "queue_ms", "inference_ms", "total_ms")
    DECODE_MS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    INFERENCE_MS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_MS_FIELD_NUMBER: _ClassVar[int]
    decode_ms: float
    queue_ms: float
    inference_ms: float
    total_ms: float
    def __init__(self, decode_ms: _Optional[float] = ..., queue_ms: _Optional[float] = ..., inference_ms: _Optional[float] = ..., total_ms: _Optional[float] = ...) -> None: ...

class ScoreResponse(_message.Message):
    __slots__ = ("request_id", "model", "results", "timings")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: ModelRef
    results: _containers.RepeatedCompositeFieldContainer[Result]
    timings: Timings
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ...) -> None: ...

class Tie(_message.Message):
    __slots__ = ("responses",)
    RESPONSES_FIELD_NUMBER: _ClassVar[int]
    responses: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, responses: _Optional[_Iterable[int]] = ...) -> None: ...

class RankResponse(_message.Message):
    __slots__ = ("request_id", "model", "results", "timings", "order", "ties", "unscored", "first_beats_second", "by_dimension")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    TIES_FIELD_NUMBER: _ClassVar[int]
    UNSCORED_FIELD_NUMBER: _ClassVar[int]
    FIRST_BEATS_SECOND_FIELD_NUMBER: _ClassVar[int]
    BY_DIMENSION_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: ModelRef
    results: _containers.RepeatedCompositeFieldContainer[Result]
    timings: Timings
    order: _containers.RepeatedScalarFieldContainer[int]
    ties: _containers.RepeatedCompositeFieldContainer[Tie]
    unscored: _containers.RepeatedScalarFieldContainer[int]
    first_beats_second: float
    by_dimension: Dimensions
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., order: _Optional[_Iterable[int]] = ..., ties: _Optional[_Iterable[_Union[Tie, _Mapping]]] = ..., unscored: _Optional[_Iterable[int]] = ..., first_beats_second: _Optional[float] = ..., by_dimension: _Optional[_Union[Dimensions, _Mapping]] = ...) -> None: ...

class ScreenRequest(_message.Message):
    __slots__ = ("request_id", "items", "weights", "options", "lane", "expect_fingerprint", "policy", "departments", "on_unscored", "viewpoint")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    LANE_FIELD_NUMBER: _ClassVar[int]
    EXPECT_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENTS_FIELD_NUMBER: _ClassVar[int]
    ON_UNSCORED_FIELD_NUMBER: _ClassVar[int]
    VIEWPOINT_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    items: _containers.RepeatedCompositeFieldContainer[Item]
    weights: _containers.ScalarMap[str, float]
    options: Options
    lane: str
    expect_fingerprint: str
    policy: str
    departments: _containers.RepeatedScalarFieldContainer[str]
    on_unscored: str
    viewpoint: str
    def __init__(self, request_id: _Optional[str] = ..., items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ..., weights: _Optional[_Mapping[str, float]] = ..., options: _Optional[_Union[Options, _Mapping]] = ..., lane: _Optional[str] = ..., expect_fingerprint: _Optional[str] = ..., policy: _Optional[str] = ..., departments: _Optional[_Iterable[str]] = ..., on_unscored: _Optional[str] = ..., viewpoint: _Optional[str] = ...) -> None: ...

class Reason(_message.Message):
    __slots__ = ("rule", "dimension", "value", "threshold")
    RULE_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    rule: str
    dimension: str
    value: float
    threshold: float
    def __init__(self, rule: _Optional[str] = ..., dimension: _Optional[str] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("verdict", "reasons", "margin")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    verdict: str
    reasons: _containers.RepeatedCompositeFieldContainer[Reason]
    margin: float
    def __init__(self, verdict: _Optional[str] = ..., reasons: _Optional[_Iterable[_Union[Reason, _Mapping]]] = ..., margin: _Optional[float] = ...) -> None: ...

class PolicyRef(_message.Message):
    __slots__ = ("name", "version", "digest")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    digest: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class ScreenResponse(_message.Message):
    __slots__ = ("request_id", "model", "results", "timings", "decisions", "policy", "decision_id")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    TIMINGS_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    DECISION_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    model: ModelRef
    results: _containers.RepeatedCompositeFieldContainer[Result]
    timings: Timings
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    policy: PolicyRef
    decision_id: str
    def __init__(self, request_id: _Optional[str] = ..., model: _Optional[_Union[ModelRef, _Mapping]] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., timings: _Optional[_Union[Timings, _Mapping]] = ..., decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., policy: _Optional[_Union[PolicyRef, _Mapping]] = ..., decision_id: _Optional[str] = ...) -> None: ...

class PutImageRequest(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class PutImageResponse(_message.Message):
    __slots__ = ("sha256", "width", "height")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    width: int
    height: int
    def __init__(self, sha256: _Optional[str] = ..., width: _Optional[int] = ..., height: _Optional[int] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Viewpoint(_message.Message):
    __slots__ = ("title", "source", "weights")
    class WeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TITLE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    title: str
    source: str
    weights: _containers.ScalarMap[str, float]
    def __init__(self, title: _Optional[str] = ..., source: _Optional[str] = ..., weights: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Departments(_message.Message):
    __slots__ = ("names",)
    NAMES_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, names: _Optional[_Iterable[str]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("ref", "dimensions", "default_weights", "limits", "viewpoints", "experts")
    class DefaultWeightsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class LimitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class ViewpointsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Viewpoint
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Viewpoint, _Mapping]] = ...) -> None: ...
    class ExpertsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Departments
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Departments, _Mapping]] = ...) -> None: ...
    REF_FIELD_NUMBER: _ClassVar[int]
    DIMENSIONS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    VIEWPOINTS_FIELD_NUMBER: _ClassVar[int]
    EXPERTS_FIELD_NUMBER: _ClassVar[int]
    ref: ModelRef
    dimensions: _containers.RepeatedScalarFieldContainer[str]
    default_weights: _containers.ScalarMap[str, float]
    limits: _containers.ScalarMap[str, float]
    viewpoints: _containers.MessageMap[str, Viewpoint]
    experts: _containers.MessageMap[str, Departments]
    def __init__(self, ref: _Optional[_Union[ModelRef, _Mapping]] = ..., dimensions: _Optional[_Iterable[str]] = ..., default_weights: _Optional[_Mapping[str, float]] = ..., limits: _Optional[_Mapping[str, float]] = ..., viewpoints: _Optional[_Mapping[str, Viewpoint]] = ..., experts: _Optional[_Mapping[str, Departments]] = ...) -> None: ...
