"""Live audio: the streams of clients, and the source that the server plays itself."""
