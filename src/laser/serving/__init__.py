"""Talking to servers: one HTTP client with retries and bounded concurrency, and a cache of replies."""
