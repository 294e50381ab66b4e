"""Audio for training: the cached bank of recordings, features on disk, augmentation."""
