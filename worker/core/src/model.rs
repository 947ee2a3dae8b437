//! The words of the domain, as they are stored and passed around.

mod adr;
mod answer;
mod directory;
mod dwell;
mod endpoint;
mod event;
mod join;
mod reception;
mod request;
mod session;
mod settings;

pub use adr::*;
pub use answer::*;
pub use directory::*;
pub use dwell::*;
pub use endpoint::*;
pub use event::*;
pub use join::*;
pub use reception::*;
pub use request::*;
pub use session::*;
pub use settings::*;
