"""``GET /api/lineage``: where a release, a device's model, a sample or a job comes from, and what came of it.

Beside it the two lists that may be long, in pages: devices that ran a release, and samples that a job was given.
"""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue

from server.api.auth import Auth
from server.api.values import Cursor, Limit, Name, PageBody, StoredNumber, ValueBody, check_whole
from server.clock import Clock
from server.lineage.answers import LineageAnswers

_SHOWN = 200  # rows in an answer by default


class NodeActBody(ValueBody):
    """What somebody did about a node: the code in the log of acts, who, when, and why ("" for no reason)."""

    at_ms: int
    by: str
    act: str
    why: str


class LineageNodeBody(ValueBody):
    """One thing; edges name it ``kind:id``. ``known``: false for what the server does not know, as ``words`` says.

    ``link``: its page or its list, "" for none. ``at_ms``: since when it is, 0 if unknown.
    """

    kind: str
    id: str
    words: str
    link: str
    at_ms: int
    known: bool
    facts: dict[str, JsonValue]
    acts: list[NodeActBody]


class LineageEdgeBody(ValueBody):
    """``target`` came of ``source``: how (``words``), and where that is known from."""

    source: str
    target: str
    words: str
    known_from: str


class LineageBody(ValueBody):
    """A graph about ``subject``, and what it says in sentences.

    ``left_out``: how many of a kind there are beyond those shown.
    """

    subject: str
    answers: list[str]
    nodes: list[LineageNodeBody]
    edges: list[LineageEdgeBody]
    left_out: dict[str, int]


class ReleaseRunBody(ValueBody):
    """A time at which a device ran a release, by its reports. ``until_ms``: 0 where it reported nothing else since.

    ``received_ms``: when the server learned of it. ``left``: the device is no longer in the fleet.
    """

    device: str
    site: str
    release: str
    from_ms: int
    until_ms: int
    received_ms: int
    left: bool


class ReleaseRunsBody(PageBody):
    """Times at which devices ran releases, by device and time."""

    runs: list[ReleaseRunBody]


class GivenSampleBody(ValueBody):
    """A sample that a job was given, with its label then and now, "" for none; ``label_by``: "" if not known.

    ``watched``: of a device that did not drift.
    """

    sample: int
    device: str
    sha256: str
    lane: str
    label: str
    label_by: str
    labelled_ms: int
    watched: bool
    label_now: str


class GivenSamplesBody(PageBody):
    """What a job was given, by the numbers of samples."""

    samples: list[GivenSampleBody]


def router(auth: Auth, lineage: LineageAnswers, clock: Clock) -> APIRouter:
    """Return the routes for viewers."""
    routes = APIRouter(tags=["lineage"], dependencies=[Depends(auth.view)])

    @routes.get("/api/lineage")
    def get_lineage(
        *, release: Name = "", device: Name = "", at: StoredNumber | None = None, sample: StoredNumber | None = None,
        job: Name = "",
    ) -> LineageBody:  # fmt: skip
        """Return the lineage of one of these; ``at``: of what ``device`` ran at that time (UTC ms), by default now."""
        if sum((release != "", device != "", sample is not None, job != "")) != 1:
            raise _wrong("release", "expected exactly one of release, device, sample, job")
        if at is not None and not device:
            raise _wrong("at", "expected at only beside device")
        if release:
            return LineageBody.of(lineage.of_release(release))
        if device:
            return LineageBody.of(lineage.of_device(device, clock() if at is None else at))
        if sample is not None:
            return LineageBody.of(lineage.of_sample(sample))
        return LineageBody.of(lineage.of_job(job))

    @routes.get("/api/lineage/devices")
    def list_devices(
        *, release: Name = "", sample: StoredNumber | None = None, now: bool | None = None, limit: Limit = None,
        cursor: Cursor = None,
    ) -> ReleaseRunsBody:  # fmt: skip
        """Return when devices ran ``release``, or a release that learned from ``sample`` or was made from such a one.

        ``now``: only what they report now, or only what they ran before.
        """
        if (release != "") == (sample is not None):
            raise _wrong("release", "expected exactly one of release, sample")
        found = lineage.runs(release=release, sample=sample, now=now, limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        return ReleaseRunsBody(
            runs=[ReleaseRunBody.of(one) for one in found.rows], next=found.next, total=found.total
        )  # fmt: skip

    @routes.get("/api/lineage/samples")
    def list_samples(job: Name, limit: Limit = None, cursor: Cursor = None) -> GivenSamplesBody:
        """Return the samples that a job was given."""
        found = lineage.given(job, limit=limit or _SHOWN, cursor=cursor)
        check_whole(found, limit, cursor)
        return GivenSamplesBody(
            samples=[GivenSampleBody.of(one) for one in found.rows], next=found.next, total=found.total
        )  # fmt: skip

    return routes


def _wrong(parameter: str, message: str) -> RequestValidationError:
    return RequestValidationError([{"loc": ("query", parameter), "msg": message}])
