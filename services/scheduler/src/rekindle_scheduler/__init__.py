"""The scheduler service: projects, cases, rounds, leases, submissions and the ledger of minutes."""
