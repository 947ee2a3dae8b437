//! The uplink protocol as an explicit-state model: every interleaving of two workers, two uplinks and any two faults.
//!
//! It is the executable form of `docs/model.md`. Change it first where the protocol is to change: [`scenario`] says what is
//! explored, [`answer`] and `steps` are the protocol, `faults` its surroundings, [`check`] what must hold. Each
//! [`rule::Rule`] can be taken out alone, to see what it is there for.

pub mod answer;
pub mod check;
pub mod explore;
mod faults;
mod forget;
pub mod label;
pub mod rule;
pub mod scenario;
pub mod state;
mod steps;
mod write;
