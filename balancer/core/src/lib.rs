//! limpet-balancer-core
