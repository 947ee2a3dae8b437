//! The scripts of one thread. Each is first run in an engine of its own; one that does nothing but decode is kept in an engine
//! for its next calls.

use std::{collections::HashMap, sync::Arc};

use crate::{
    CodecError, Limits,
    js::{Answer, Call},
    realm::{Still, fresh},
    tame::is_tame,
};

/// Scripts kept on a thread.
const KEPT: usize = 64;

pub(crate) struct Sandbox {
    limits: Limits,
    scripts: HashMap<u128, Kept>,
    calls: u64,
}

struct Kept {
    text: Arc<str>,
    last_call: u64,
    way: Way,
}

enum Way {
    /// Not run yet, or stopped.
    Unknown,
    Still(Box<Still>),
    /// It needs an engine of its own for each call.
    Fresh,
}

impl Sandbox {
    pub fn new(limits: Limits) -> Self {
        Self { limits, scripts: HashMap::new(), calls: 0 }
    }

    pub fn run(&mut self, id: u128, text: &Arc<str>, call: &Call) -> Result<Answer, CodecError> {
        let limits = self.limits;
        if matches!(call, Call::Check) {
            return fresh(limits, text, call);
        }
        let script = self.script(id, text);
        if let Way::Still(still) = &script.way {
            let answer = still.call(call);
            let unchanged = still.is_unchanged();
            match answer {
                Ok(answer) => {
                    if !unchanged {
                        script.way = Way::Fresh;
                    }
                    return Ok(answer);
                }
                Err(error) if error.is_stop() => {
                    script.way = Way::Unknown;
                    return Err(error);
                }
                // It may only have failed because something could not be changed.
                Err(_) => {
                    let answer = fresh(limits, text, call);
                    if answer.is_ok() || !unchanged {
                        script.way = Way::Fresh;
                    }
                    return answer;
                }
            }
        }
        let answer = fresh(limits, text, call);
        if answer.is_ok() && matches!(script.way, Way::Unknown) {
            let still = if is_tame(text) { Still::new(limits, text).ok() } else { None };
            script.way = still.map_or(Way::Fresh, |still| Way::Still(Box::new(still)));
        }
        answer
    }

    /// Nobody knows what state the script's engine is in: it is not even taken down.
    pub fn give_up(&mut self, id: u128) {
        if let Some(Kept { way: Way::Still(still), .. }) = self.scripts.remove(&id) {
            std::mem::forget(still);
        }
    }

    fn script(&mut self, id: u128, text: &Arc<str>) -> &mut Kept {
        self.calls += 1;
        if !self.scripts.contains_key(&id) && self.scripts.len() >= KEPT {
            let oldest = self.scripts.iter().min_by_key(|(_, script)| script.last_call).map(|(id, _)| *id);
            oldest.and_then(|oldest| self.scripts.remove(&oldest));
        }
        let new = || Kept { text: text.clone(), last_call: 0, way: Way::Unknown };
        let script = self.scripts.entry(id).or_insert_with(new);
        if script.text != *text {
            *script = new();
        }
        script.last_call = self.calls;
        script
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::js::Input;

    /// How the script is run after two calls.
    fn way(text: &str) -> &'static str {
        let mut sandbox = Sandbox::new(Limits::default());
        let text: Arc<str> = text.into();
        for _ in 0..2 {
            let values = r#"{"bytes": [1, 2], "fPort": 1, "variables": {}}"#.into();
            let call = Call::Decode(Input { values, received_at: Some(0), f_port: 1 });
            let _ = sandbox.run(1, &text, &call);
        }
        match sandbox.scripts[&1].way {
            Way::Unknown => "unknown",
            Way::Still(_) => "still",
            Way::Fresh => "fresh",
        }
    }

    #[test]
    fn a_script_that_only_decodes_keeps_its_engine() {
        let decoder = "function decodeUplink(input) { return { data: { n: Buffer.from(input.bytes).length } } }";
        assert_eq!(way(decoder), "still");
        assert_eq!(way(&format!("String.prototype.x = 1; {decoder}")), "fresh");
        assert_eq!(way(&format!("left = 1; {decoder}")), "fresh");
        assert_eq!(way(&format!("var a = Array.prototype; a.last = 1; if (!a.last) throw 1; {decoder}")), "fresh");
        assert_eq!(way("function decodeUplink(input) { return foo }"), "unknown");
    }

    #[test]
    fn scripts_that_are_kept_are_bounded() {
        let mut sandbox = Sandbox::new(Limits::default());
        for id in 0..3 * KEPT as u128 {
            sandbox.script(id, &"".into());
        }
        assert_eq!(sandbox.scripts.len(), KEPT);
        assert!(sandbox.scripts.contains_key(&(3 * KEPT as u128 - 1)));
    }
}
