"""The errors of the agent, as a tree.

AgentError
├── ImageError               bytes that are not an image we may decode
├── RuntimeSeamError         a runtime can't be had or can't run
│   ├── RuntimeMissingError  the runtime a manifest names isn't installed
│   ├── RuntimeLoadError     the artifact can't be opened by its runtime
│   └── InputShapeError      a batch is not what the model eats
├── ReferenceStreamsError    a reference counts other streams than this agent
├── FrameError               bytes on a pipe that are not a frame
└── SourceError              a source of images can't be opened

Every error carries a stable ``code`` that also travels in reports.
"""

from __future__ import annotations

from typing import ClassVar


class AgentError(Exception):
    """Something the device was asked for can't be done."""

    code: ClassVar[str] = "agent"


class ImageError(AgentError):
    """The bytes are no image, or one that is too large to decode."""

    code = "image_invalid"


class RuntimeSeamError(AgentError):
    """A runtime can't be had or can't run."""

    code = "runtime"


class RuntimeMissingError(RuntimeSeamError):
    """The runtime that a manifest names is unknown here or its package is not installed."""

    code = "runtime_missing"


class RuntimeLoadError(RuntimeSeamError):
    """The runtime can't open the artifact, or the artifact contradicts its manifest."""

    code = "bundle_invalid"


class InputShapeError(RuntimeSeamError):
    """A batch has another shape or type than the model's input."""

    code = "input_shape"


class ReferenceStreamsError(AgentError):
    """A reference profile counts other streams than this version of the agent."""

    code = "reference_streams"


class FrameError(AgentError):
    """Bytes on a pipe are not a frame, or one that is too large."""

    code = "frame_invalid"


class SourceError(AgentError):
    """A source of images is missing, empty or misconfigured."""

    code = "source_invalid"
