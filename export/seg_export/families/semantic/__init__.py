"""U-Net, U-Net++ and TransUNet: one probability map per class."""
