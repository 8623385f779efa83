"""The training recipe: losses, augmentation and a loop that resumes exactly."""
