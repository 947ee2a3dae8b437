//! Panics of simulated servers. Their runtimes catch them, as production's do, and nobody would notice.

use std::{cell::RefCell, sync::Once};

thread_local! {
    static NOTED: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// From now on panics on this thread are noted, and not printed.
pub fn note() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let noted = NOTED.with_borrow_mut(|noted| noted.as_mut().map(|noted| noted.push(panic.to_string())));
            if noted.is_none() {
                before(panic);
            }
        }));
    });
    NOTED.set(Some(Vec::new()));
}

pub fn noted() -> Vec<String> {
    NOTED.with_borrow(Clone::clone).unwrap_or_default()
}
