"""The network of a machine's containers: bridge, addresses, published ports."""
