"""Who may use which device: requests, placement and the ledger of leases."""
