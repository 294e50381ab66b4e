"""The one reader of audio: files and pipes, known by their content, read to their real end in constant memory."""
