"""StatefulSets: pods with names that stay, volumes that stay with the names, and revisions of the template."""
