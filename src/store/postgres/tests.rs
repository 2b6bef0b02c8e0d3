//! The store in PostgreSQL, beyond the contract of every store.
