//! limpet-api
