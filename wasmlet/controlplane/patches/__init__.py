"""How an object changes by a patch: JSON, merge, strategic merge, server-side apply."""
