"""The verdict on a recording: sounds in continuous audio, familiarity, and what they say of each breath."""
