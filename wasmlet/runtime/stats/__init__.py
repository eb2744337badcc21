"""What the node, its pods and their containers take: CPU, memory, disk."""
