"""The errors of the build host, as a tree.

CompressorError
├── RecipeError            a recipe that can't be read
├── PluginError            a data set, network or step that is not there, or lacks its package
├── StepDidNothingError    a step that changed nothing, although it must
├── DataError              data that can't be used
│   ├── ColumnError        the CSV lacks a column
│   ├── CorruptImageError  more images are broken than the recipe allows
│   ├── ArchiveError       a zip or folder that may not be opened
│   ├── StorageError       the pixels of the data can't be kept on disk, or read again
│   └── SplitError         splits that overlap or are too small
├── ConversionError        an ONNX file that can't become a network
│   └── OperatorError      an operator, or an attribute of one, that a network can't express
├── CheckpointError        a file that holds no weights, or none that fit the network
├── TrainError             training that failed (the loss is not finite)
│   └── LostProcessError   another process of a distributed training ended, or does not answer
├── PruneError             a network that can't be pruned as the recipe asks
├── ExportError            a network that can't be exported
├── QuantizeError          a model that can't be quantized
│   └── AlreadyQuantizedError  it is int8 already
├── MeasureError           an artifact that can't be measured
│   ├── ModelFileError     a person's model file that can't be read
│   │   ├── ExternalDataError    its weights in other files can't be read
│   │   ├── ModelOperatorsError  it has operators that devices lack
│   │   ├── ModelSignatureError  its inputs or outputs don't fit the recipe
│   │   └── PreprocessingError   it does far better with another preprocessing than the recipe's default
│   └── DeviceMeasureError a device did not measure, or its report is not trusted
│       └── DeviceUnreachableError  a device's shell can't be reached
├── CannotError            an inventory gives no way to do this with a device
├── InventoryError         an inventory of devices that can't be read
├── PackageError           a bundle that can't be written or verified
├── LedgerError            the looks at gate splits that can't be read or counted
├── TrustError             keys or signatures
│   └── KeysExistError     keys would be overwritten
├── WorkerError            a retraining job that can't be claimed or carried out
│   └── JobLostError       the job was leased to another worker, or has ended
├── TrackingError          a finished run can't be logged
│   └── TrackingUnreachableError  the tracking server did not answer
└── PublishError           a release can't be signed, or the server refused it
    ├── GateNotPassedError       the certificate does not say "pass"
        ├── ReleaseExistsError       the release is already signed, with other bytes
    ├── VersionConflictError     another build host published in between
    └── ServerUnreachableError   the server did not answer

Every error carries a stable ``code`` that also travels in reports.
"""

from __future__ import annotations

from typing import ClassVar


class CompressorError(Exception):
    """Something a person can put right: the message says what and how."""

    code: ClassVar[str] = "compressor"


class RecipeError(CompressorError):
    """A recipe has an unknown key, a wrong type or a value out of range."""

    code = "recipe_invalid"


class PluginError(CompressorError):
    """A plug-in is not in its folder, lacks the agreed function, or lacks a package it needs."""

    code = "plugin_missing"


class DataError(CompressorError):
    """Data can't be used as the recipe says."""

    code = "data_invalid"


class ColumnError(DataError):
    """A CSV lacks a column that the recipe names."""

    code = "column_missing"


class CorruptImageError(DataError):
    """More images are broken than ``allow_corrupt`` permits."""

    code = "image_corrupt"


class CorruptInputError(CorruptImageError):
    """More sounds, windows or other inputs of a front end are broken than ``allow_corrupt`` permits."""

    code = "input_corrupt"


class ArchiveError(DataError):
    """A zip or folder has unsafe paths, or more or larger entries than allowed."""

    code = "archive_refused"


class StorageError(DataError):
    """The pixels of the data can't be written to a disk or read from it again."""

    code = "data_storage"


class SplitError(DataError):
    """Two splits share a sample or a source, or a split is too small for its purpose."""

    code = "split_invalid"


class ConversionError(CompressorError):
    """An ONNX file can't be read as a network, or the network computes something else."""

    code = "conversion_failed"


class OperatorError(ConversionError):
    """An ONNX file has an operator, or an attribute of one, that a network can't express."""

    code = "operator_unsupported"


class CheckpointError(CompressorError):
    """A file does not hold weights for this network."""

    code = "checkpoint_invalid"


class TrainError(CompressorError):
    """Training diverged or had no data to learn from."""

    code = "train_failed"


class LostProcessError(TrainError):
    """Another process of a distributed training ended, or did not answer in time."""

    code = "train_process_lost"


class StepDidNothingError(CompressorError):
    """A step changed nothing, and its settings don't allow that."""

    code = "step_did_nothing"


class PruneError(CompressorError):
    """A network can't be pruned as far as the recipe asks, or has nothing to prune."""

    code = "prune_failed"


class ExportError(CompressorError):
    """A network does not export to the target format."""

    code = "export_failed"


class QuantizeError(CompressorError):
    """A model can't be quantized, or there was nothing to calibrate on."""

    code = "quantize_failed"


class AlreadyQuantizedError(QuantizeError):
    """A model is quantized already: nothing is left for a scheme."""

    code = "already_quantized"


class MeasureError(CompressorError):
    """An artifact can't be run or measured."""

    code = "measure_failed"


class ModelFileError(MeasureError):
    """A person's model file is no such file, or incomplete."""

    code = "model_invalid"


class ExternalDataError(ModelFileError):
    """Weights of a model in other files are missing, cut off, too large, or in a place that may not be read."""

    code = "model_external_data"


class ModelOperatorsError(ModelFileError):
    """A model has operators, or an opset, that devices lack."""

    code = "model_operators"


class ModelSignatureError(ModelFileError):
    """Inputs or outputs of a model don't fit the recipe."""

    code = "model_signature"


class PreprocessingError(ModelFileError):
    """A model gets inputs by the recipe's defaults, and calibration rows show that it was trained on others."""

    code = "preprocessing_wrong"


class ModelOutputsError(ModelSignatureError):
    """It is not clear what the outputs of a model mean: the recipe must say it."""

    code = "model_outputs"


class DeviceMeasureError(MeasureError):
    """A device did not answer in time, refused, or sent a report that is not trusted."""

    code = "device_measure"


class DeviceUnreachableError(DeviceMeasureError):
    """A device's shell can't be reached: neither its agent nor a measurement can be judged."""

    code = "device_unreachable"


class CannotError(CompressorError):
    """The inventory gives no way to do this with the device: a test that needs it is skipped."""

    code = "device_cannot"


class InventoryError(CompressorError):
    """An inventory of devices has an unknown key, a wrong type or a value out of range, or names no device."""

    code = "inventory_invalid"


class PackageError(CompressorError):
    """A bundle can't be written or does not verify."""

    code = "package_invalid"


class LedgerError(CompressorError):
    """The ledger of looks at gate splits can't be read or written; nothing is judged without it."""

    code = "looks_invalid"


class TrustError(CompressorError):
    """Keys are missing, or a signature does not verify."""

    code = "trust_invalid"


class PublishError(CompressorError):
    """The server refused a release, or can't be reached."""

    code = "publish_failed"


class KeysExistError(TrustError):
    """The folder holds keys; they are never overwritten."""

    code = "keys_exist"


class GateNotPassedError(PublishError):
    """A bundle has no certificate that says ``pass``; it is never signed."""

    code = "gate_not_passed"


class ReleaseExistsError(PublishError):
    """A release of this name and target is signed already, with other bytes."""

    code = "release_exists"


class VersionConflictError(PublishError):
    """Another build host published in between."""

    code = "version_conflict"


class ServerUnreachableError(PublishError):
    """The server did not answer."""

    code = "server_unreachable"


class WorkerError(CompressorError):
    """A retraining job can't be claimed from the server, or can't be carried out here."""

    code = "worker_failed"


class JobLostError(WorkerError):
    """The job was leased to another worker, or has ended; the result is discarded."""

    code = "lease_lost"


class TrackingError(CompressorError):
    """A finished run can't be logged; its files are complete on disk."""

    code = "tracking_failed"


class TrackingUnreachableError(TrackingError):
    """The tracking server did not answer; try again later."""

    code = "tracking_unreachable"
