"""Measures the CPU, memory and disk usage of the node, its pods and their containers."""
