"""The packages on booted Debian systems: `make test-deb`."""
