//! Virtual gateways and devices. `limpet simulate` plays them against any server; the black-box tests and the load
//! generator build on the same parts.
//!
//! [`VirtualGateway`] is a packet forwarder with a concentrator: it speaks GWMP and refuses what a real one refuses.
//! [`VirtualDevice`] is a LoRaWAN 1.0.x class A device without a radio: bytes in, bytes out. [`Air`] is what lies between:
//! several gateways hear one transmission, and a device hears a downlink only if it comes at the right time, frequency
//! and data rate. [`simulate`] plays many of them and says what came back.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod air;
mod airtime;
mod device;
pub mod engine;
mod gateway;
pub mod simulate;

pub use air::{Air, Caught, Coverage, Flight, Stray};
pub use airtime::time_on_air;
pub use device::{
    DeviceConfig, DeviceError, ReceiveError, Received, RxWindow, Session, Transmission, Uplink, VirtualDevice,
};
pub use gateway::{
    Answer, Counters, Downlink, GatewayConfig, Judge, OnAir, Push, Refuse, TxAckFrom, TxAckStyle, VirtualGateway,
};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after another holder panicked: all that is guarded here is valid after any statement.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
