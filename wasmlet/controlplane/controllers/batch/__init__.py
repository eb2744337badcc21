"""Jobs: pods that run to completion, until enough of them have succeeded."""
