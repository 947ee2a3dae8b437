//! limpet-bench
