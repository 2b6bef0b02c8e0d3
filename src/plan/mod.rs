//! Plans: schema, validation, registry.
