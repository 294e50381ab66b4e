"""``stetho serve``: a web page and an interface over HTTP and WebSocket to see, play and correct recordings."""
