"""Tables of published results, and the developer's script that builds them."""
