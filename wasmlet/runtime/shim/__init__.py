"""The node loop's side of the shim: the connection, the requests, and the records that the shim sends."""
