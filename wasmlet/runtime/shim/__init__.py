"""The node loop's side of the shim: the connection, what is asked over it, and the records that it keeps."""
