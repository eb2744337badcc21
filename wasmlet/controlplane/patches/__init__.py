"""The four kinds of patch, as functions on objects: JSON, merge, strategic merge, server-side apply."""
