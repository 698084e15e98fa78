"""The node agent: offers devices and keeps leases on one machine."""
