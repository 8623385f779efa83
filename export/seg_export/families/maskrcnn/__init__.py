"""Mask R-CNN: detections with masks, one graph of fixed shapes."""
