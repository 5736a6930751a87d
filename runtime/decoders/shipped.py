"""The built-in decoders; importing this module registers them."""

from __future__ import annotations

from runtime.decoders.classes import Classify, Values
from runtime.decoders.pairs import Detr, Ssd
from runtime.decoders.text import Db
from runtime.decoders.yolo import Yolov5, Yolov8, Yolox

SHIPPED = (Classify, Db, Detr, Ssd, Values, Yolov5, Yolov8, Yolox)
