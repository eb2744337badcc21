"""Objects in memory: kinds, versions, history for watches, selectors, statuses of errors."""
