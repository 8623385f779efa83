"""Image and video files in, files of results out."""
