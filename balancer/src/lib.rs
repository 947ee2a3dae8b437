//! limpet-balancer
