"""
The Triton model `tensorrt_llm`: the reference engine behind Triton's Python backend.

Decides what crosses the border: tensors to torch and back, response senders, the FINAL flag, `stop`. Does not know how
answers are computed (tailor_engine does, and is tested without Triton). Tensors go through DLPack and never through
numpy: the stub takes the numpy of the interpreter's own site-packages, whatever PYTHONPATH says, and where that is
numpy 2 as_numpy reads wrong values and a string kills the stub. bfloat16 it has not at all.
"""

import json
import logging
import os
import sys
import threading
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The stub runs its interpreter isolated, so PYTHONPATH has to be read here, and goes first: the interpreter's own
# site-packages may hold another torch. Our package lies beside this file.
PYTHONPATH = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
sys.path[:0] = [str(Path(__file__).resolve().parent), *PYTHONPATH]

import torch  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402
from tailor_engine.answers import Delivery  # noqa: E402
from tailor_engine.engine import load_engine  # noqa: E402
from tailor_engine.errors import EngineLoadError, EnqueueError  # noqa: E402
from tailor_engine.manifest import read_options  # noqa: E402
from tailor_engine.tensors_in import Inputs, flag, read_requests  # noqa: E402
from tailor_engine.tensors_out import output_tensors  # noqa: E402
from tailor_engine.triton_metrics import MetricsPublisher  # noqa: E402
from torch.utils.dlpack import from_dlpack  # noqa: E402

FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
REQUIRED_OUTPUTS = ("output_ids", "sequence_length")


@dataclass(eq=False)
class _Call:
    """One Triton request: its sender, how many of its rows are still open, and the executor's numbers of them."""

    sender: Any
    request_id: str
    rows: int
    open_rows: int
    numbers: list[int] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _RowOf:
    """A row of a call, as the executor's caller."""

    call: _Call
    row: int

    def is_cancelled(self) -> bool:
        return self.call.sender is None or bool(self.call.sender.is_cancelled())


class TritonPythonModel:
    """What Triton's stub calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine that the parameter gpt_model_path names, and start its thread."""
        logging.basicConfig(level=logging.INFO, handlers=[_TritonLog()], force=True)
        model = json.loads(args["model_config"])
        parameters = {name: entry["string_value"] for name, entry in model.get("parameters", {}).items()}
        self._decoupled = bool(model.get("model_transaction_policy", {}).get("decoupled", False))
        self._string_inputs = {entry["name"] for entry in model["input"] if entry["data_type"] == "TYPE_STRING"}
        self._calls: dict[str, _Call] = {}
        self._calls_lock = threading.Lock()
        self._metrics = MetricsPublisher(pb_utils)
        try:
            self._exclude_input = read_options(parameters).exclude_input_in_output
            self._engine = load_engine(
                Path(parameters.get("gpt_model_path", "")), parameters, self._deliver, self._metrics.update
            )
        except EngineLoadError as error:
            self._metrics.close()
            raise pb_utils.TritonModelException(str(error)) from error
        self._thread = threading.Thread(target=self._engine.run, name="engine", daemon=True)
        self._thread.start()

    def execute(self, requests: Seq[Any]) -> None:
        """Hand every request to the engine; answers go through its response sender."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._accept(request, sender)
            except EnqueueError as error:
                _send_error(sender, str(error), FINAL)
            except Exception as error:
                logging.exception("a request could not be read")
                _send_error(sender, f"the request could not be read: {error}", FINAL)

    def finalize(self) -> None:
        """Let the current step end, answer what is still open, and stop."""
        self._engine.close()
        self._thread.join()
        self._metrics.close()

    def _accept(self, request: Any, sender: Any) -> None:
        inputs, request_id = self._inputs(request), request.request_id()
        if flag(inputs, "stop"):
            self._stop(request_id)
            self._send_empty(sender)
            return
        wanted = set(request.requested_output_names())
        for name in REQUIRED_OUTPUTS:
            if name not in wanted:
                raise EnqueueError(f"{name} tensor must be present in list of output tensors")
        parameters = json.loads(request.parameters() or "{}")
        rows = read_requests(
            inputs,
            exclude_input_default=self._exclude_input,
            decoupled=self._decoupled,
            request_type=parameters.get("request_type"),
        )
        call = _Call(sender, request_id, len(rows), len(rows))
        if request_id:
            with self._calls_lock:
                self._calls[request_id] = call  # the latest of equal ids is the one that can be stopped
        for index, row in enumerate(rows):
            try:
                call.numbers.append(self._engine.submit(row, _RowOf(call, index)))
            except EnqueueError as error:
                self._deliver([Delivery(_RowOf(call, index), row, None, str(error), True)])

    def _stop(self, request_id: str) -> None:
        if not request_id:
            raise EnqueueError("Trying to stop a request but request ID is not provided")
        with self._calls_lock:
            call = self._calls.get(request_id)
        for number in [] if call is None else call.numbers:
            self._engine.stop(number)

    def _inputs(self, request: Any) -> Inputs:
        tensors: dict[str, torch.Tensor] = {}
        strings: set[str] = set()
        for tensor in request.inputs():
            name = tensor.name()
            if name in self._string_inputs:
                strings.add(name)
            else:
                tensors[name] = from_dlpack(tensor.to_dlpack())
        return Inputs(tensors, frozenset(strings))

    def _deliver(self, deliveries: Seq[Delivery]) -> None:
        """Send what one step produced. Called from the engine's thread, and from execute for a row that was refused."""
        for delivery in deliveries:
            try:
                self._send(delivery)
            except Exception:  # one caller that cannot be answered must not take the engine's thread with it
                logging.exception("an answer could not be sent")

    def _send(self, delivery: Delivery) -> None:
        row = delivery.caller
        if not isinstance(row, _RowOf):
            raise TypeError("a delivery for a caller that this model did not submit")
        call, last = row.call, False
        if delivery.final:
            with self._calls_lock:
                call.open_rows -= 1
                last = call.open_rows == 0
                if last and self._calls.get(call.request_id) is call:
                    del self._calls[call.request_id]
        flags = FINAL if last else 0
        if delivery.error is not None:
            _send_error(call.sender, delivery.error, flags)
        elif delivery.output is not None:
            batch_index = row.row if call.rows > 1 else None
            tensors = output_tensors(delivery.request, delivery.output, batch_index)
            outputs = [pb_utils.Tensor.from_dlpack(name, tensor) for name, tensor in tensors.items()]
            call.sender.send(pb_utils.InferenceResponse(output_tensors=outputs), flags=flags)
        elif last:
            self._send_empty(call.sender)

    def _send_empty(self, sender: Any) -> None:
        """The end without content. Without decoupling one response is owed, so there it is one without tensors."""
        if self._decoupled:
            sender.send(flags=FINAL)
        else:
            sender.send(pb_utils.InferenceResponse(output_tensors=[]), flags=FINAL)


def _send_error(sender: Any, text: str, flags: int) -> None:
    error = pb_utils.TritonError(text, pb_utils.TritonError.INTERNAL)
    sender.send(pb_utils.InferenceResponse(error=error), flags=flags)


class _TritonLog(logging.Handler):
    """Python's log records in the server's log."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            pb_utils.Logger.log_error(text)
        elif record.levelno >= logging.WARNING:
            pb_utils.Logger.log_warn(text)
        else:
            pb_utils.Logger.log_info(text)
