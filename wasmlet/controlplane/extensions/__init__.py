"""Custom resources: what a CustomResourceDefinition says, and what follows from it for the objects of its kind."""
