"""Frames in and out as streams: video files, folders, cameras and addresses; mp4, masks and overlays."""

from seg_runtime.video.drawing import draw_objects, label_map
from seg_runtime.video.masks import MaskSink, PngMasks, RleMasks
from seg_runtime.video.open import open_video
from seg_runtime.video.source import FrameSource
from seg_runtime.video.writer import VideoWriter

__all__ = [
    "FrameSource",
    "MaskSink",
    "PngMasks",
    "RleMasks",
    "VideoWriter",
    "draw_objects",
    "label_map",
    "open_video",
]
