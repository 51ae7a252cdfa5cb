"""Labels from CVAT: image classification, exported as "CVAT for images 1.1", in a zip or a folder.

::

    set/
    ├── annotations.xml              <image name="film-1/0001.jpg" subset="Train"><tag label="cat"/></image>
    └── images/                      of an export with images; or anywhere below, by the names in the XML
        └── film-1/0001.jpg

The label of an image is its tag; an image without a tag is left out. The subset is the split (``train``,
``validation``, ``test``, as in ``class_folders``; others are drawn). The source is the tag's attribute ``source``,
else the image's folder if the images lie in several folders of mixed classes.

The export "ImageNet 1.0" is folders of classes: ``class_folders`` reads it.

Source: https://docs.cvat.ai/docs/manual/advanced/xml_format/, "Annotation format for images".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from compressor.data._archive import Names, opened
from compressor.data._layout import splits_of
from compressor.data._named_files import NamedFiles, folder_sources
from compressor.data._table import Table, check_label, source_name
from compressor.data.labelled_images import LabelRow, listed
from compressor.errors import ArchiveError, DataError
from compressor.recipe.model import DataRecipe

READS = frozenset({"path", "allow_corrupt", "orientation", "decode", "bits"})
MAX_XML_BYTES = 256 * 1024 * 1024
_MAX_TEXT = 4096
_MAX_DEPTH = 64


@dataclass(slots=True, kw_only=True)
class _Image:
    name: str
    subset: str
    tags: list[str] = field(default_factory=list)
    source: str = ""


def load(data: DataRecipe, root: Path | None = None) -> Table:
    """Return the tagged images of the export in ``data.path``, in its order.

    Raises:
        ArchiveError: If the archive can't be opened, has unsafe paths, or too many or too large entries, or no export.
        CorruptImageError: If more images than ``data.allow_corrupt`` are missing or broken.
        DataError: If the export is damaged, or an image has several tags.
        SplitError: If one content is in two splits.
    """
    path = (root or Path()) / data.path
    with opened(path) as store:
        name = _export(store, path)
        images = _images(store.read(name, MAX_XML_BYTES), name)
        files = NamedFiles(store.names(), str(path))
    tagged = [image for image in images if image.tags]
    if not tagged:
        message = f"Expected images with a tag in {name}, got none of {len(images)}"
        raise DataError(f"{message}: boxes are read by other data sets; a tag labels a whole image")
    for image in tagged:
        if len(set(image.tags)) > 1:
            message = f"Expected one tag of {image.name[:200]!r} in {name}, got {', '.join(image.tags)[:200]}"
            raise DataError(f"{message}: a classifier has one label for each image; leave the image out")
        check_label(image.tags[0], f"{name}, image {image.name[:200]!r}")
    splits = splits_of({image.subset.casefold() for image in tagged})
    folders = folder_sources([image.name for image in tagged], [image.tags[0] for image in tagged])
    rows = [
        LabelRow(
            path=files.find(f"{image.subset}/{image.name}" if image.subset else image.name, name),
            label=image.tags[0],
            slice="all",
            split=splits.get(image.subset.casefold(), ""),
            source=source_name(image.source or folder),
        )
        for image, folder in zip(tagged, folders, strict=True)
    ]
    return listed(data, path, rows)


def _export(store: Names, path: Path) -> str:
    found = [name for name in store.names() if name.lower().endswith(".xml") and "/" not in name]
    if len(found) != 1:
        message = f"Expected annotations.xml of CVAT at the top of {path}, got {', '.join(found[:5]) or 'no XML'}"
        raise ArchiveError(f'{message}: export the task as "CVAT for images 1.1"')
    return found[0]


class _Reader:
    """Collects images while expat reads; entities and document types are refused before they are expanded."""

    def __init__(self) -> None:
        self.images: list[_Image] = []
        self.root = ""
        self._depth = 0
        self._attribute = False
        self._open: _Image | None = None

    def start(self, element: str, attributes: dict[str, str]) -> None:
        self.root = self.root or element
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            message = f"elements nested deeper than {_MAX_DEPTH}"
            raise ValueError(message)
        if element == "image":
            self._open = _Image(
                name=attributes.get("name", "")[:_MAX_TEXT], subset=attributes.get("subset", "")[:_MAX_TEXT]
            )
            if not self._open.name:
                message = f"image number {len(self.images)} without a name"
                raise ValueError(message)
            self.images.append(self._open)
        elif element == "tag" and self._open is not None:
            self._open.tags.append(attributes.get("label", ""))
        elif element == "attribute" and self._open is not None:
            self._attribute = attributes.get("name") == "source"

    def text(self, content: str) -> None:
        if self._attribute and self._open is not None and len(self._open.source) < _MAX_TEXT:
            self._open.source += content

    def end(self, element: str) -> None:
        self._depth -= 1
        self._attribute = False
        if element == "image":
            self._open = None

    @staticmethod
    def refuse(*_: object) -> NoReturn:
        message = "a document type or an entity, which no export of CVAT has"
        raise ValueError(message)


def _images(content: bytes, name: str) -> list[_Image]:
    reader, parser = _Reader(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = reader.start, reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = parser.ExternalEntityRefHandler = reader.refuse
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        message = f"Expected {name} as XML, got: {str(error)[:120]}: export it again"
        raise DataError(message) from error
    if reader.root != "annotations":
        message = f"Expected {name} to begin with <annotations>, got <{reader.root[:40]}>"
        raise DataError(f'{message}: export the task as "CVAT for images 1.1"')
    return reader.images
