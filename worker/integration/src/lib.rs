//! limpet-integration
