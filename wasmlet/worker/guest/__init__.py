"""The processes that become guests (zygote, children, dense workers), the compiler process, and what restricts them."""
