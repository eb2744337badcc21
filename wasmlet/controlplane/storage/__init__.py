"""Objects in memory: the table of kinds, the store with its history, selectors, and the errors of the API."""
