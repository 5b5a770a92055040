"""Disks that lose power (`cli.lab.disk`), for tests of single processes."""
