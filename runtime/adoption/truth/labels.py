"""Labels that the user has, as truths of the footage's frames: COCO JSON, YOLO text files, or folders of classes.

Labels are of pictures by name. A frame of a video has its number as its name: the last digits in a name count, from 0,
or from 1 if no name has 0 and one has the number of pictures.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from controller.errors import UsageError
from runtime.adoption.truth.footage import Found
from runtime.decoders.base import MOST_CLASSES
from runtime.files.masking import shown
from runtime.files.reading import read_bounded
from runtime.sources.footage import placement_of
from runtime.sources.image_folder import natural
from runtime.workloads.adopted.pictures import open_pictures, picture_files

_MOST_BYTES = 512 << 20
_DIGITS = re.compile(r"(\d+)\D*$")
_KINDS = "a COCO JSON file, a folder of YOLO text files, or a folder with one folder of pictures per class"


@dataclass(frozen=True)
class Labels:
    """One truth for each frame, and the names of the classes in it."""

    truths: list[Any]
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()  # classes of the labels that the model does not know


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int = 0
    height: int = 0


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # x, y, w, h in pixels of the image
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int
    name: str


class _Coco(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_labels(path: Path, found: Found, classes: Sequence[str] = (), task: str = "detect") -> Labels:
    """Labels of footage. ``classes``: names of the model's classes; (): as the labels say.

    UsageError when the labels are of another kind, of other images, or of classes that the model does not have.
    """
    if task == "classify":
        return _folders_of_classes(path, found, classes)
    if task not in ("detect", "text"):
        raise UsageError(f"got --labels with the task {task!r}; expected detect, text or classify")
    if path.is_file():
        return _coco(path, found, classes, one_class=task == "text")
    if path.is_dir():
        return _yolo(path, found, classes, one_class=task == "text")
    raise UsageError(f"--labels {shown(path)}: no such file or folder; expected {_KINDS}")


# COCO ----------------------------------------------------------------------------------------------------------


def _coco(path: Path, found: Found, classes: Sequence[str], one_class: bool) -> Labels:
    try:
        document = msgspec.json.decode(read_bounded(path, _MOST_BYTES), type=_Coco)
    except OSError as error:
        raise UsageError(f"--labels {shown(path)}: {error.strerror or error}; expected {_KINDS}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"--labels {shown(path)} is not COCO JSON: {error}; expected {_KINDS}") from None
    _check_ids(document, path)
    names, class_of, left_out = _numbered(document.categories, classes, one_class)
    frame_of = _frames_of([image.file_name for image in document.images], found, path)
    missing = found.footage.frames - len(set(frame_of.values()))
    if missing:
        raise UsageError(
            f"--labels {shown(path)} lists {found.footage.frames - missing} of the {found.footage.frames} frames; "
            "expected every frame, also those without objects"
        )
    images = {image.id: image for image in document.images if image.file_name in frame_of}
    boxes: dict[int, list[list[float]]] = defaultdict(list)
    for annotation in document.annotations:
        image, kind = images.get(annotation.image_id), class_of.get(annotation.category_id)
        if image is not None and kind is not None and not annotation.iscrowd:
            size = (image.height, image.width) if image.height > 0 < image.width else found.frame_shape[:2]
            placed = placement_of(size, found.frame_shape).inverse(found.frame_shape)
            boxes[frame_of[image.file_name]] += placed.boxes([[*annotation.bbox, 1.0, kind]])
    return Labels([boxes[number] for number in range(found.footage.frames)], names, left_out)


def _check_ids(document: _Coco, path: Path) -> None:
    """UsageError when images share a number, or an annotation is of a category that is not in the file."""
    known = {category.id for category in document.categories}
    strange = next((each.category_id for each in document.annotations if each.category_id not in known), None)
    if strange is not None:
        raise UsageError(
            f"--labels {shown(path)} has an annotation of category {strange}; expected one of its {len(known)} "
            "categories"
        )
    if len({image.id for image in document.images}) < len(document.images):
        raise UsageError(f"--labels {shown(path)} has two images with the same id; expected an id for each image")


def _numbered(
    categories: Sequence[_Category], classes: Sequence[str], one_class: bool
) -> tuple[tuple[str, ...], dict[int, int], tuple[str, ...]]:
    """Names of the classes, the class of each category, and the names of those that have none."""
    ordered = sorted(categories, key=lambda category: category.id)
    if one_class:
        return tuple(classes) or ("text",), {category.id: 0 for category in ordered}, ()
    names = tuple(classes) or tuple(category.name for category in ordered)
    class_of = {category.id: names.index(category.name) for category in ordered if category.name in names}
    left_out = tuple(category.name for category in ordered if category.name not in names)
    if not class_of:
        raise UsageError(
            f"the labels are of {', '.join(left_out[:5]) or 'no classes'}; expected some of the model's classes: "
            f"{', '.join(names[:5])}"
        )
    return names, class_of, left_out


# YOLO ----------------------------------------------------------------------------------------------------------


def _yolo(path: Path, found: Found, classes: Sequence[str], one_class: bool) -> Labels:
    """Lines of class, x, y of the middle, width, height, as fractions of the picture. No file: no objects."""
    files = sorted((file for file in path.glob("*.txt") if file.stem != "classes"), key=lambda file: natural(file.name))
    if not files:
        raise UsageError(f"--labels {shown(path)} has no text files; expected {_KINDS}")
    frame_of = _frames_of([file.stem for file in files], found, path)
    truths: list[Any] = [[] for _ in range(found.footage.frames)]
    pictures = open_pictures(Path(found.footage.path)) if found.files else None
    most = 0
    for file in files:
        if file.stem in frame_of:
            number = frame_of[file.stem]
            size = found.frame_shape[:2] if pictures is None else pictures.picture(number * found.footage.step).shape
            placed = placement_of(size, found.frame_shape).inverse(found.frame_shape)
            boxes = [_box(line, file, size[:2], one_class) for line in _lines(file)]
            most = max([most, *(int(box[5]) for box in boxes)])
            truths[number] = placed.boxes(boxes)
    if classes and most >= len(classes):
        raise UsageError(f"--labels {shown(path)} has a class {most}; expected 0 to {len(classes) - 1}")
    return Labels(truths, tuple(classes) or (("text",) if one_class else tuple(map(str, range(most + 1)))))


def _lines(file: Path) -> list[str]:
    try:
        text = read_bounded(file, _MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"labels {shown(file)} cannot be read: {error}; expected a YOLO text file") from None
    return [line for line in text.splitlines() if line.strip()]


def _box(line: str, file: Path, size: tuple[int, ...], one_class: bool) -> list[float]:
    try:
        kind, x, y, w, h = (float(word) for word in line.split()[:5])
        if not (0 <= kind < MOST_CLASSES and kind == int(kind) and all(-1.0 <= value <= 2.0 for value in (x, y, w, h))):
            raise ValueError
    except (ValueError, OverflowError):
        raise UsageError(
            f"labels {shown(file)}: got {line[:60]!r}; expected class, x, y, width, height as fractions of the picture"
        ) from None
    height, width = size
    return [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height, 1.0, 0 if one_class else int(kind)]


# Folders of classes --------------------------------------------------------------------------------------------


def _folders_of_classes(path: Path, found: Found, classes: Sequence[str]) -> Labels:
    """The name of the folder that holds the picture of a frame, or one with its name."""
    if not path.is_dir():
        raise UsageError(
            f"--labels {shown(path)} is no folder; expected a folder with one folder of pictures per class"
        )
    kind_of = {(file.parent.name, file.stem): file.parent.name for file in picture_files(path) if file.parent != path}
    folders = sorted(set(kind_of.values()), key=natural)
    names = tuple(classes) or tuple(folders)
    unknown = [folder for folder in folders if folder not in names]
    if not folders or unknown:
        got = f"a folder {unknown[0]!r}" if unknown else "no folders of pictures"
        raise UsageError(f"--labels {shown(path)} has {got}; expected folders named as classes: {', '.join(names[:5])}")
    own = bool(found.files) and path.resolve() == Path(found.footage.path)
    if own:
        return Labels([names.index(file.parent.name) for file in found.files[: found.footage.frames]], names)
    stems = {stem: names.index(kind) for (_, stem), kind in kind_of.items()}
    frame_of = _frames_of(list(stems), found, path)
    truths: list[Any] = [None] * found.footage.frames
    for stem, number in frame_of.items():
        truths[number] = stems[stem]
    if None in truths:
        raise UsageError(
            f"--labels {shown(path)} has no class for frame {truths.index(None)} and {truths.count(None) - 1} others; "
            "expected a picture for each frame of the footage"
        )
    return Labels(truths, names)


# Which frame ---------------------------------------------------------------------------------------------------


def _frames_of(names: Sequence[str], found: Found, path: Path) -> Mapping[str, int]:
    """The frame that each name is of, for those that are of one; UsageError when half of them are not."""
    frames, step = found.footage.frames, found.footage.step
    if found.files:
        number_of = {found.name_of(number): number for number in range(frames)}
        all_pictures = {file.stem for file in found.files}
        known = {name: number_of[stem] for name in names if (stem := _stem(name)) in number_of}
        strange = [name for name in names if _stem(name) not in all_pictures]
    else:
        numbers = {name: int(digits[1]) for name in names if (digits := _DIGITS.search(_stem(name)))}
        first = 1 if numbers and min(numbers.values()) == 1 and max(numbers.values()) >= frames * step else 0
        at = {name: number - first for name, number in numbers.items()}
        known = {name: place // step for name, place in at.items() if place % step == 0 and 0 <= place // step < frames}
        strange = [name for name in names if name not in numbers]
    if not known or len(strange) > len(names) / 2:
        shown_names = ", ".join((strange or list(names))[:2]) or "no images"
        raise UsageError(
            f"--labels {shown(path)} are of other images ({shown_names}); expected labels of {found.footage.file}, "
            f"whose frames are called like {found.name_of(0)}"
        )
    return known


def _stem(name: str) -> str:
    return Path(name).stem if Path(name).suffix else name
