"""Nodes whose pods run elsewhere: behind an agent, many of them in one process, and pools that an operator keeps."""
