//! Steps in words.

use std::fmt;

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Nothing,
    /// A transmission, by its place in the scenario.
    Sent(usize),
    /// An uplink's event.
    Event(u8),
    Down(u8),
}

/// Who does what. Displayed as a sentence.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// A worker, if it is one.
    pub worker: Option<usize>,
    pub what: &'static str,
    pub of: Of,
}

impl Label {
    pub fn of_worker(worker: usize, what: &'static str, of: Of) -> Self {
        Self { worker: Some(worker), what, of }
    }

    pub fn outside(what: &'static str, of: Of) -> Self {
        Self { worker: None, what, of }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worker {
            Some(0) => write!(f, "worker A {}", self.what)?,
            Some(_) => write!(f, "worker B {}", self.what)?,
            None => write!(f, "{}", self.what)?,
        }
        match self.of {
            Of::Nothing => Ok(()),
            Of::Sent(sent) => write!(f, " [transmission {}]", sent + 1),
            Of::Event(up) => write!(f, " [event of FCntUp {}]", up + 1),
            Of::Down(down) => write!(f, " [FCntDown {down}]"),
        }
    }
}
