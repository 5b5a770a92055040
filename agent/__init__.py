"""What one machine does: units, containers, images, network, the Docker API, journals. It knows no cluster but by
`interfaces`."""
