//! limpet-link
