"""The errors of the agent, as a tree.

AgentError
├── ImageError               bytes that are not an image, or one too large to decode
│   ├── ImageTooLargeError   an image that needs more memory than is available
│   └── SensorError          bytes that are not the sound or window a front end reads
├── RuntimeSeamError         a runtime is not available or can't run
│   ├── RuntimeMissingError  the runtime a manifest names isn't installed
│   ├── TaskMissingError     the task a manifest names isn't installed
│   ├── RuntimeLoadError     the artifact can't be opened by its runtime
│   │   └── RuntimeMemoryError   the model needs more memory than the process may have
│   └── InputShapeError      a batch does not fit the model's input
├── ReferenceStreamsError    a reference counts other streams than this agent
├── FrameError               bytes on a pipe that are not a frame
├── GoldenError              golden vectors are missing or unreadable
├── SampleRequestError       a request for samples can't be served
├── SignatureRefusedError    signed metadata does not vouch for a bundle
├── ModelClosedError         a closed model is asked for an answer
├── SourceError              a source of images can't be opened
├── SinkError                a sink of answers can't be opened, or takes none now
├── ApiError                 a request to the local interface can't be served
├── AgentConfigError         agent.toml has an unknown key or an impossible value
├── IdentityError            the device is not enrolled, or its identity can't be read
│   └── CertificateError     its key or certificate can't be made, read or used
├── EnrolmentError           the server refused or could not be reached
├── IdentityInUseError       another agent uses this state directory
├── RequestRefusedError      the agent refuses a request of the device's owner, or doesn't take it
├── NewerFormatError         a persistent file was written by a newer agent; also a ``MessageError``
├── TransitionError          an update phase has no transition for a signal: a bug of the agent
└── SpoolError               the spool can't be written; added rows wait in memory

Every error carries a stable ``code`` that also travels in reports.
"""

from __future__ import annotations

from typing import ClassVar

from wire.errors import MessageError


class AgentError(Exception):
    """The device can't do what it was asked to."""

    code: ClassVar[str] = "agent"


class ImageError(AgentError):
    """The bytes are not an image, or one that is too large to decode."""

    code = "image_invalid"


class ImageTooLargeError(ImageError):
    """The image has more pixels, or needs more memory to decode, than is allowed."""

    code = "image_too_large"


class SensorError(ImageError):
    """The bytes are not a sound or window that fits the front end's options, or one that is too large."""

    code = "sensor_invalid"


class SmootherError(AgentError):
    """The manifest names a smoother that this agent does not have, or its options are out of range."""

    code = "smoother_invalid"


class DecoderError(AgentError):
    """The manifest names a decoder that this agent lacks, its options are out of range, or outputs don't fit."""

    code = "decoder_invalid"


class RuntimeSeamError(AgentError):
    """A runtime is not available or can't run."""

    code = "runtime"


class RuntimeMissingError(RuntimeSeamError):
    """The runtime that a manifest names is unknown here or its package is not installed."""

    code = "runtime_missing"


class TaskMissingError(RuntimeSeamError):
    """The task that a manifest names is unknown here or its package is not installed."""

    code = "task_missing"


class RuntimeLoadError(RuntimeSeamError):
    """The runtime can't open the artifact, or the artifact contradicts its manifest."""

    code = "bundle_invalid"


class RuntimeMemoryError(RuntimeLoadError):
    """The model needs more memory than this process may have."""

    code = "out_of_memory"


class InputShapeError(RuntimeSeamError):
    """A batch has another shape or type than the model's input."""

    code = "input_shape"


class ReferenceStreamsError(AgentError):
    """A reference profile counts other streams than this version of the agent."""

    code = "reference_streams"


class FrameError(AgentError):
    """Bytes on a pipe are not a frame, or a frame is too large."""

    code = "frame_invalid"


class GoldenError(AgentError):
    """A bundle's golden vectors are missing or malformed."""

    code = "bundle_invalid"


class SampleRequestError(AgentError):
    """A request for samples names an unknown lane or asks for too much."""

    code = "sample_request_invalid"


class SignatureRefusedError(AgentError):
    """Signed metadata does not vouch for a bundle; ``refused`` is the code that a device would report."""

    code = "signature_refused"

    def __init__(self, refused: str, text: str) -> None:
        """Take the code and the text of the verification."""
        super().__init__(text)
        self.refused = refused


class ModelClosedError(AgentError):
    """A closed model is asked for an answer."""

    code = "model_closed"


class SourceError(AgentError):
    """A source of images is missing, empty or misconfigured."""

    code = "source_invalid"


class SinkError(AgentError):
    """A sink of answers is misconfigured, or can't deliver now; the first ``delivered`` answers reached a receiver."""

    code = "sink_failed"

    def __init__(self, text: str, *, delivered: int = 0) -> None:
        """Take the text, and how many of the answers of this call were delivered before the failure."""
        super().__init__(text)
        self.delivered = delivered


class ApiError(AgentError):
    """A request to the local interface can't be served; ``status`` is that of HTTP."""

    code = "api_request"

    def __init__(self, status: int, text: str, *, retry_s: int = 0) -> None:
        """Take the status, the text, and after how many seconds another try makes sense (0: never)."""
        super().__init__(text)
        self.status, self.retry_s = status, retry_s


class AgentConfigError(AgentError):
    """``agent.toml`` can't be read, has an unknown key or an impossible value."""

    code = "config_invalid"


class IdentityError(AgentError):
    """There is no identity, or it can't be read: enrol the device."""

    code = "identity_missing"


class CertificateError(IdentityError):
    """The device's key or certificate can't be made, read or used."""

    code = "certificate_failed"


class EnrolmentError(AgentError):
    """The server refused the claim or could not be reached."""

    code = "enrolment_failed"


class IdentityInUseError(AgentError):
    """Another agent runs on this state directory."""

    code = "identity_in_use"


class RequestRefusedError(AgentError):
    """The agent refuses a request of the device's owner, or doesn't take it; ``refused`` is the code of the reason."""

    code = "refused"

    def __init__(self, refused: str, text: str) -> None:
        """Take the code and the text of the refusal."""
        super().__init__(text)
        self.refused = refused


class SpoolError(AgentError):
    """The spool can't be opened or written; added rows wait in memory and are tried again."""

    code = "spool_write"


class NewerFormatError(AgentError, MessageError):
    """A record or the spool was written by a newer agent: it is kept, and not read.

    Readers that treat a damaged record as missing catch it as a ``MessageError``.
    """

    code = "format_newer"


class TransitionError(AgentError):
    """An update phase has no transition for a signal: a bug of the agent, never caused by a message."""

    code = "transition_unknown"


def reason_of(error: Exception) -> str:
    """Return what went wrong, for a sentence that names the subject: of an ``OSError`` without its number and path."""
    return (error.strerror if isinstance(error, OSError) else "") or str(error)
