"""The broker: the one process of a node that opens sockets for guests, and passes them to the guests' processes."""
