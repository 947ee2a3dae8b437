//! limpet-worker
