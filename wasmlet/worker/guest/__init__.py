"""What becomes a guest: the zygote, its children, dense workers, the compiler, and what confines them."""
