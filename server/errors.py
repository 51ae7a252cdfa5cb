"""The errors of the server, as a tree.

ServerError
├── ConfigError               server.toml has an unknown key or an invalid value
├── StateDirectoryError       the state directory is missing, foreign or damaged
├── AlreadyRunningError       another server holds the state directory
├── DiskFullError             the server's disk is full
├── DatabaseError             the database can't be used
│   ├── DatabaseRefusedError      it is locked, read-only or gone: asking again later may help
│   ├── ValueRefusedError         it can't hold a value
│   ├── DatabaseUnavailableError  its URL is wrong or its driver is not installed
│   ├── DatabaseLostError         it is empty, though a server ran here before
│   ├── DatabaseOutdatedError     an older tinyfleet made it: it must be migrated
│   ├── DatabaseNewerError        a newer tinyfleet has migrated it
│   └── DatabaseForeignError      its tables or rows are not a fleet's
├── NotAgreedError            a person did not agree, or nobody was there to ask
├── NotRunningError           no server answers
│   └── ServerUntrustedError  a server whose certificate is not trusted
├── AnsweredError             the running server refused
├── PlanStaleError            what a plan is about was changed by somebody else since
├── PlanRefusedError          a wanted state that can't be had as the fleet is
├── NotLoggedInError          no token for a server on another host
├── ClientFileError           a client's token or certificate file can't be used
├── AnswerInvalidError        the answer is not from a server of this project, or from another version
├── BrokerError               mosquitto can't be started or does not answer
│   ├── BrokerMissingError    mosquitto is not installed
│   └── PortInUseError        another program listens on the port
├── CursorRefusedError        a cursor that is not of the list that is asked for
├── PageNeededError           a list that is too long for one answer, asked for without a limit
├── UnauthorizedError         no or wrong credentials
├── ForbiddenError            an account whose role may not do this, or which signs with another's name
├── UserRefusedError          a user that can't be made or changed as asked
│   └── PasswordRefusedError  a password that is too short or too long
├── UnknownUserError          no such user
├── TokenRefusedError         a token that can't be made as asked
├── UnknownTokenError         no such token
├── PasswordsUnavailableError argon2-cffi is not installed
├── AuditLogBrokenError       the log of acts was changed
├── AnchorInvalidError        an anchor of the log of acts that can't be read
├── ClaimRefusedError         an enrolment claim is unknown, used, void or expired
├── CertificateRefusedError   a request for a certificate that can't be signed, or a server that needs one
├── DeviceExistsError         the device id is taken
├── UnknownDeviceError        no such device
├── UnknownSoftwareError      what a device ran then is not known
├── TagsRefusedError          a device can't have these tags, or this name
├── TextRefusedError          a reason or note with a character that does not print
├── MuteRefusedError          a device can't be muted so
├── DeviceEndedError          a device that was revoked or removed
├── UnknownReleaseError       no such release
├── UnknownBlobError          no such blob
├── NotAssignedError          a bundle that is not assigned to the device that asks
├── TrustStoreError           keys, root or signed metadata of this server are missing or damaged
│   ├── RootMissingError      no root was installed yet
│   └── MetadataRefusedError  uploaded metadata lacks a required signature, or lists a bundle that is not here
│       └── TargetsVersionError   another build host published in between
├── UnknownRolloutError       no such rollout
├── RolloutRefusedError       a rollout that can't be made as asked
│   ├── ReleaseWithdrawnError a release that may not be rolled out any more
│   ├── ApprovalRefusedError  an approval of somebody whose approval does not count
│   └── RolloutPhaseError     a rollout that can't do this in its phase
├── SampleRefusedError        a sample that may not be stored
├── UnknownSampleError        no such sample
├── LabelRefusedError         a label that is empty, too long or does not fit
├── LabelTakenError           a label of an image that another person has labelled otherwise
├── LabelFileError            a file of labels that can't be read
├── NoNewPlaceError           a device without a new place, which can't be accepted
├── CommissionRefusedError    a commission without a reason, or of no device
├── AuditOffError             a request for audit samples that nobody has allowed
│   └── NotAskedError         a request for samples of a release that no label here judges, such as one of boxes
│       └── NoPicturesError   a request for samples of inputs that no server takes, such as sounds
├── UnknownAlertError         no such alert
├── AlertRefusedError         an act on an alert that can't be done
├── DeliveryError             a receiver did not accept a notice: it is sent again later
├── UnknownTriggerError       no such retraining
├── TriggerPhaseError         a retraining that awaits no approval
├── NotRetrainedError         a retraining of a release whose inputs no worker trains on
├── UnknownMeasurementError   no such measurement on a device, or no report of it
├── MeasurementRefusedError   an order or a report that can't be taken
├── NotTheDeviceError         a measurement that belongs to another device
├── UnknownJobError           no such training job
├── GateSplitUsedError        a gate split that no more retrainings may be judged on
├── LookMissingError          a certificate that is of an earlier look at the gate split than its job
├── LeaseLostError            a job that is leased to another worker, or over
└── BlobRefusedError          an upload's digest or size differs from the announced one
    └── BlobOversizeError

Every error carries a stable ``code`` that also travels in HTTP answers and events, and the HTTP ``status``.
"""

from __future__ import annotations

from typing import ClassVar


class ServerError(Exception):
    """The server can't do what it was asked to."""

    code: ClassVar[str] = "server"
    status: ClassVar[int] = 400


class ConfigError(ServerError):
    """The configuration has an unknown key or an impossible value."""

    code = "config_invalid"


class StateDirectoryError(ServerError):
    """The state directory is missing, foreign, damaged, or exists already."""

    code = "state_directory"


class AlreadyRunningError(ServerError):
    """Another server runs on the state directory."""

    code = "already_running"


class DiskFullError(ServerError):
    """The server's disk is full."""

    code = "disk_full"
    status = 507


class DatabaseError(ServerError):
    """The database can't be used."""

    code = "database"
    status = 503


class DatabaseRefusedError(DatabaseError):
    """The database is locked, read-only or gone; asking again later may help."""

    code = "database_refused"


class ValueRefusedError(DatabaseError):
    """The database can't hold a value."""

    code = "value_refused"
    status = 422


class DatabaseUnavailableError(DatabaseError):
    """The URL is wrong, or its driver is not installed."""

    code = "database_unavailable"


class DatabaseLostError(DatabaseError):
    """The database is empty, though a server ran here before."""

    code = "database_lost"


class DatabaseOutdatedError(DatabaseError):
    """An older tinyfleet made the database; ``fleet-server migrate`` brings it to this version."""

    code = "database_outdated"


class DatabaseNewerError(DatabaseError):
    """A newer tinyfleet has migrated the database."""

    code = "database_newer"


class DatabaseForeignError(DatabaseError):
    """The tables or rows are not a fleet's."""

    code = "database_foreign"


class NotAgreedError(ServerError):
    """A person did not agree, or nobody was there to ask."""

    code = "not_agreed"
    status = 409


class NotRunningError(ServerError):
    """No server answers on the state directory."""

    code = "not_running"
    status = 503


class ServerUntrustedError(NotRunningError):
    """The server's certificate is not trusted, or of another host."""

    code = "tls_untrusted"


class PlanStaleError(ServerError):
    """Somebody else changed what a plan is about since it was made."""

    code = "plan_stale"
    status = 409


class PlanRefusedError(ServerError):
    """A wanted state of a fleet can't be had as the fleet is."""

    code = "plan_refused"
    status = 409


class NotLoggedInError(ServerError):
    """There is no token for the address of a server."""

    code = "not_logged_in"
    status = 401


class AnsweredError(ServerError):
    """The running server refused; ``answered`` is the code it gave."""

    code = "refused_by_server"

    def __init__(self, answered: str, text: str) -> None:
        """Take the code and the text of the answer."""
        super().__init__(text)
        self.answered = answered


class ClientFileError(ServerError):
    """A client's token or certificate file is missing, or holds something else."""

    code = "client_file"


class AnswerInvalidError(ServerError):
    """The answer is not what a server of this project gives."""

    code = "answer_invalid"
    status = 502


class BrokerError(ServerError):
    """The broker can't be started or does not answer."""

    code = "broker_failed"
    status = 503


class BrokerMissingError(BrokerError):
    """mosquitto is not installed."""

    code = "broker_missing"


class PortInUseError(BrokerError):
    """Another program listens on the port."""

    code = "port_in_use"


class CursorRefusedError(ServerError):
    """A cursor that is not of the list, or of its order, that is asked for."""

    code = "cursor_refused"
    status = 422


class PageNeededError(ServerError):
    """A list is too long for one answer, and the caller gave no ``limit``, as for a page."""

    code = "page_needed"
    status = 422


class UnauthorizedError(ServerError):
    """The request has no credentials, or wrong ones."""

    code = "unauthorized"
    status = 401


class ForbiddenError(ServerError):
    """An account whose role may not do this, or one that signs with the name of another."""

    code = "forbidden"
    status = 403


class UserRefusedError(ServerError):
    """A user that can't be made or changed as asked."""

    code = "user_refused"
    status = 422


class PasswordRefusedError(UserRefusedError):
    """A password that is too short or too long."""

    code = "password_refused"


class UnknownUserError(ServerError):
    """There is no user of that name."""

    code = "unknown_user"
    status = 404


class TokenRefusedError(ServerError):
    """A token that can't be made as asked."""

    code = "token_refused"
    status = 422


class UnknownTokenError(ServerError):
    """There is no token of that id."""

    code = "unknown_token"
    status = 404


class PasswordsUnavailableError(ServerError):
    """The library that hashes passwords is not installed."""

    code = "passwords_unavailable"
    status = 503


class AuditLogBrokenError(ServerError):
    """The log of acts was changed by other means than appending."""

    code = "audit_log_broken"


class AnchorInvalidError(ServerError):
    """An anchor of the log of acts that can't be read."""

    code = "anchor_invalid"


class ClaimRefusedError(ServerError):
    """The claim can't be used. ``cause``: unknown, used, void or expired; ``device``: its device, "" if unknown."""

    code = "claim_refused"
    status = 403

    def __init__(self, text: str, cause: str = "", device: str = "") -> None:
        """Take the text, the cause and the device."""
        super().__init__(text)
        self.cause = cause
        self.device = device


class CertificateRefusedError(ServerError):
    """A request for a certificate can't be signed, or a device must prove its identity in another way."""

    code = "certificate_refused"
    status = 422


class DeviceExistsError(ServerError):
    """The device id is taken; ids are unique in the fleet."""

    code = "device_exists"
    status = 409


class UnknownDeviceError(ServerError):
    """There is no such device."""

    code = "unknown_device"
    status = 404


class TextRefusedError(ServerError):
    """A reason or note of a person has a character that does not print."""

    code = "text_refused"
    status = 422


class MuteRefusedError(ServerError):
    """A device can't be muted so: the end is past, or the reason is too long or not printable."""

    code = "mute_refused"
    status = 422


class UnknownSoftwareError(ServerError):
    """It is not known what software a device ran at that time: it reported none, or its list is not here yet."""

    code = "unknown_software"
    status = 404


class TagsRefusedError(ServerError):
    """A device can't have these tags, or this name: too many, too long, or both to get and to lose."""

    code = "tags_refused"
    status = 422


class DeviceEndedError(ServerError):
    """The device was revoked or removed."""

    code = "device_ended"
    status = 409


class UnknownReleaseError(ServerError):
    """There is no such release."""

    code = "unknown_release"
    status = 404


class UnknownBlobError(ServerError):
    """There is no such blob."""

    code = "unknown_blob"
    status = 404


class NotAssignedError(ServerError):
    """A device asks for a bundle that is not assigned to it."""

    code = "not_assigned"
    status = 403


class BlobRefusedError(ServerError):
    """The bytes that arrived are not those that were announced."""

    code = "digest_mismatch"
    status = 422


class BlobOversizeError(BlobRefusedError):
    """The upload is larger than allowed."""

    code = "too_large"
    status = 413


class TrustStoreError(ServerError):
    """Keys, root or signed metadata of this server are missing or damaged."""

    code = "trust_invalid"
    status = 500


class RootMissingError(TrustStoreError):
    """No root was installed yet."""

    code = "root_missing"
    status = 409


class MetadataRefusedError(TrustStoreError):
    """Uploaded metadata lacks a required signature, or lists a bundle that is not here."""

    code = "metadata_refused"
    status = 422


class TargetsVersionError(MetadataRefusedError):
    """Another build host published in between."""

    code = "version_conflict"
    status = 409


class UnknownRolloutError(ServerError):
    """There is no such rollout."""

    code = "unknown_rollout"
    status = 404


class RolloutRefusedError(ServerError):
    """A rollout can't be made as asked: no devices, impossible thresholds, another one runs on them."""

    code = "rollout_refused"
    status = 422


class ReleaseWithdrawnError(RolloutRefusedError):
    """The release was withdrawn: it is offered to no device any more."""

    code = "release_withdrawn"
    status = 409


class RolloutPhaseError(RolloutRefusedError):
    """A rollout can't do this in its phase."""

    code = "rollout_phase"
    status = 409


class ApprovalRefusedError(RolloutRefusedError):
    """An approval of somebody whose approval does not count, by ``[rollout] approvers``."""

    code = "approval_refused"
    status = 409


class ReleaseRegressedError(RolloutRefusedError):
    """The release has an open ``release_regression``, which nobody has dismissed."""

    code = "release_regressed"
    status = 409


class UnknownVerdictError(ServerError):
    """There is no such verdict."""

    code = "unknown_verdict"
    status = 404


class VerdictKeptError(ServerError):
    """A verdict can't be dismissed: it is over, it holds no rollout, or no reason was given."""

    code = "verdict_kept"
    status = 409


class ReplayMissingError(ServerError):
    """An alarm can't be derived again to the bit: something it rests on is missing, or was changed."""

    code = "replay_missing"
    status = 409


class SampleRefusedError(ServerError):
    """A sample is too large, of another media type, beyond the daily limit, or does not match its digest."""

    code = "sample_refused"
    status = 422


class UnknownSampleError(ServerError):
    """There is no such sample."""

    code = "unknown_sample"
    status = 404


class NoNewPlaceError(ServerError):
    """A place is accepted of a device that has no verdict ``new_place``."""

    code = "no_new_place"
    status = 409


class CommissionRefusedError(ServerError):
    """A commission has no reason or name, or no device has the attribute that it is for."""

    code = "commission_refused"
    status = 422


class AuditOffError(ServerError):
    """Audit samples are asked for on a server that may not ask devices for inputs."""

    code = "audit_off"
    status = 409


class NotAskedError(AuditOffError):
    """Samples are asked for from a device whose answers no label here judges, or whose bundle can't be read."""

    code = "not_asked"


class NoPicturesError(NotAskedError):
    """Samples are asked for from a device whose inputs are no pictures: it sends none."""

    code = "no_pictures"


class LabelRefusedError(ServerError):
    """A label is empty, too long, or neither a class nor a number as its model needs."""

    code = "label_refused"
    status = 422


class LabelTakenError(ServerError):
    """Another person has labelled the image otherwise meanwhile; nothing was changed."""

    code = "label_taken"
    status = 409


class LabelFileError(ServerError):
    """A file of labels is none of its format, or too large."""

    code = "label_file"
    status = 422


class UnknownSignalError(ServerError):
    """The overall status has no such signal."""

    code = "unknown_signal"
    status = 404


class UnknownAlertError(ServerError):
    """No alert has that id."""

    code = "alert_unknown"
    status = 404


class AlertRefusedError(ServerError):
    """The alert is resolved, or the act lacks a reason or a possible time."""

    code = "alert_refused"
    status = 409


class DeliveryError(ServerError):
    """The receiver of a notice did not accept it."""

    code = "delivery_failed"
    status = 502


class UnknownTriggerError(ServerError):
    """There is no such retraining."""

    code = "unknown_retraining"
    status = 404


class NotRetrainedError(ServerError):
    """A retraining can't be approved: no worker trains on inputs of its release."""

    code = "not_retrained"
    status = 409


class TriggerPhaseError(ServerError):
    """A retraining awaits no approval in its phase."""

    code = "retraining_phase"
    status = 409


class UnknownMeasurementError(ServerError):
    """There is no such measurement on a device, or it has no report yet."""

    code = "unknown_measurement"
    status = 404


class MeasurementRefusedError(ServerError):
    """An order has run out, names bytes that are not here, or a report does not answer its order."""

    code = "measurement_refused"
    status = 422


class NotTheDeviceError(ServerError):
    """A measurement belongs to another device."""

    code = "not_the_device"
    status = 403


class UnknownJobError(ServerError):
    """There is no such training job."""

    code = "unknown_job"
    status = 404


class GateSplitUsedError(ServerError):
    """So many retrainings were judged on a gate split that no risk is left for another."""

    code = "gate_split_used"
    status = 409


class LookMissingError(ServerError):
    """The certificate of a job is of an earlier look at the gate split than the job is."""

    code = "look_missing"
    status = 422


class LeaseLostError(ServerError):
    """The job is leased to another worker, or over."""

    code = "lease_lost"
    status = 409
