"""Networks: what they are, which addresses they give, and the links that carry them."""
