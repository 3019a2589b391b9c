"""The Open Inference Protocol over gRPC, on the port of the reward service."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from operator import methodcaller
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message

from medreward.api.compat import oip
from medreward.api.compat.asking import PARAMETERS, read_call, score
from medreward.api.observing import Entry
from medreward.api.rpc.middleware import Observe
from medreward.api.rpc.requests import metadata_of, parse_message
from medreward.api.rpc.status import Context
from medreward.engine.engine import Engine
from medreward.errors import Code, RequestError
from medreward.proto import inference_pb2 as pb

SERVICE: Final = "inference.GRPCInferenceService"
METHODS: Final = tuple(
    f"/{SERVICE}/{name}"
    for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
)
INFER: Final = METHODS[-1]
#: Fields of a request with messages in them, whose elements are counted before they are parsed.
NESTED: Final = (
    pb.ModelInferRequest.INPUTS_FIELD_NUMBER,
    pb.ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER,
)

M = TypeVar("M", bound=Message)


class InferenceService:
    """Its methods take messages as bytes, as those of the reward service do."""

    def __init__(self, engine: Engine, observe: Observe) -> None:
        self._engine = engine
        self._observe = observe

    def handlers(self) -> grpc.GenericRpcHandler:
        methods = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ModelReady": self.model_ready,
            "ServerMetadata": self.server_metadata,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
        }
        answering = partial(grpc.unary_unary_rpc_method_handler, response_serializer=methodcaller("SerializeToString"))
        return grpc.method_handlers_generic_handler(
            SERVICE, {name: answering(method) for name, method in methods.items()}
        )

    async def server_live(self, message: bytes, context: Context) -> pb.ServerLiveResponse:
        async with self._observe.call(f"/{SERVICE}/ServerLive", context):
            return pb.ServerLiveResponse(live=True)

    async def server_ready(self, message: bytes, context: Context) -> pb.ServerReadyResponse:
        async with self._observe.call(f"/{SERVICE}/ServerReady", context):
            return pb.ServerReadyResponse(ready=self._engine.not_ready() is None)

    async def server_metadata(self, message: bytes, context: Context) -> pb.ServerMetadataResponse:
        async with self._observe.call(f"/{SERVICE}/ServerMetadata", context):
            return pb.ServerMetadataResponse(**oip.SERVER)

    async def model_ready(self, message: bytes, context: Context) -> pb.ModelReadyResponse:
        async with self._observe.call(f"/{SERVICE}/ModelReady", context):
            request = self._read(pb.ModelReadyRequest, message)
            oip.check_model(self._engine, request.name, request.version)
            return pb.ModelReadyResponse(ready=self._engine.not_ready() is None)

    async def model_metadata(self, message: bytes, context: Context) -> pb.ModelMetadataResponse:
        async with self._observe.call(f"/{SERVICE}/ModelMetadata", context):
            request = self._read(pb.ModelMetadataRequest, message)
            oip.check_model(self._engine, request.name, request.version)
            return pb.ModelMetadataResponse(**oip.model_about(self._engine))

    async def model_infer(self, message: bytes, context: Context) -> pb.ModelInferResponse:
        engine = self._engine
        async with self._observe.call(INFER, context) as entry:
            with engine.bodies.reserve(len(message)):
                request = self._read(pb.ModelInferRequest, message)
                oip.check_model(engine, request.model_name, request.model_version)
                call = read_call(INFER, entry, _texts(request.parameters), metadata_of(context))
                engine.refuse_early(entry.lane)
                samples = oip.samples(self._tensors(request))
                wanted = [output.name for output in request.outputs]
                oip.outputs((), wanted)  # a name that no output has is refused before any work
                entry.caller.charge(len(samples))
                answers = await score(engine, call, samples)
            context.set_trailing_metadata(tuple(entry.id_headers().items()))
            return self._reply(request, entry, oip.outputs(answers, wanted))

    def _read(self, kind: type[M], message: bytes) -> M:
        return parse_message(kind, message, NESTED, self._engine.settings)

    def _tensors(self, request: pb.ModelInferRequest) -> list[oip.Tensor]:
        raw = request.raw_input_contents
        if raw and len(raw) != len(request.inputs):
            raise RequestError(
                Code.INVALID_FIELD, "raw_input_contents must be as many as inputs", "/raw_input_contents"
            )
        tensors = []
        for i, given in enumerate(request.inputs):
            pointer = f"/inputs/{i}"
            elements: Sequence[oip.Element] = given.contents.bytes_contents
            if raw:
                elements = oip.elements_of(raw[i], pointer, self._engine.settings)
            tensors.append(oip.tensor(given.name, given.datatype, given.shape, elements, pointer))
        return tensors

    def _reply(self, request: pb.ModelInferRequest, entry: Entry, outputs: list[oip.Output]) -> pb.ModelInferResponse:
        """Returns the outputs as the inputs came: as raw bytes, or as contents, in which a missing number is NaN."""
        ref, id_ = self._engine.models.named(entry.fingerprint).ref, request.id or entry.request_id
        reply = pb.ModelInferResponse(model_name=ref.name, model_version=ref.version, id=id_)
        for output in outputs:
            written = reply.outputs.add(name=output.name, datatype="FP64", shape=output.shape)
            if request.raw_input_contents:
                reply.raw_output_contents.append(output.binary())
            else:
                written.contents.fp64_contents.extend(
                    math.nan if number is None else number for number in output.numbers
                )
        return reply


def _texts(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Returns those parameters of a request that a URL may have too, as the URL has them."""
    given = {name: parameters[name] for name in PARAMETERS if name in parameters}
    return {
        name: str(getattr(value, value.WhichOneof("parameter_choice") or "string_param"))
        for name, value in given.items()
    }
