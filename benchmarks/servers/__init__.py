"""Guests that answer requests: servers with listeners, components of wasi:http, and actors of waSCC."""
