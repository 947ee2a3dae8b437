//! Sessions that are over. An uplink that was acknowledged may wait for its acceptance while its device joins again: it is under a session
//! that nobody is in any more. So the row stays, as long as receptions do, and is only told from.

use alloc::vec::Vec;

use limpet_shared::{AesKey, UnixMicros};

use crate::{
    ident,
    model::{Answer, DeviceState, FormerSession, Over, RECEPTIONS_KEPT, Session, SessionKey, SessionKeys},
};

/// So many of a device are kept, and so many of one DevAddr, whose frames are compared with all of them: of more the first ones end for
/// good. A device that joins or is activated without end costs no more than that.
const MOST: usize = 8;
const MOST_OF_ADDR: usize = 2;

impl Session {
    /// The keys that its device has, or had.
    pub fn device_keys(&self) -> SessionKeys {
        self.over.map_or(self.keys, |over| over.keys)
    }

    /// The row that ends it: what was received up to then is still accepted, for its event alone. Nothing is decided in it any more, so that
    /// its FCntDown stays where it is. Nobody knows the keys in the place of its own; so a server of a version before takes it for a session
    /// that no frame is of.
    pub fn ended(&self, at: UnixMicros) -> Self {
        let keys = self.device_keys();
        let veiled = |key: &AesKey| AesKey(ident::veil(key));
        Self {
            rev: self.rev + 1,
            keys: SessionKeys { nwk_s_key: veiled(&keys.nwk_s_key), app_s_key: veiled(&keys.app_s_key) },
            answer: Answer::Closed,
            over: Some(Over { at, keys }),
            ..self.clone()
        }
    }
}

impl DeviceState {
    /// Notes that these sessions are over. Returns those that are kept no more, whose rows are to be deleted.
    pub fn part_with(&mut self, sessions: impl IntoIterator<Item = SessionKey>, at: UnixMicros) -> Vec<SessionKey> {
        for key in sessions {
            if self.former.iter().all(|former| former.key != key) {
                self.former.push(FormerSession { key, at });
            }
        }
        let is_gone = |former: &mut FormerSession| at.since(former.at) >= RECEPTIONS_KEPT;
        let mut gone: Vec<SessionKey> = self.former.extract_if(.., is_gone).map(|former| former.key).collect();
        while let Some(crowded) = self.crowded() {
            gone.push(self.former.remove(crowded).key);
        }
        gone
    }

    /// The one that makes room.
    fn crowded(&self) -> Option<usize> {
        let of_addr = |former: &FormerSession| {
            self.former.iter().filter(|other| other.key.dev_addr == former.key.dev_addr).count() > MOST_OF_ADDR
        };
        if self.former.len() > MOST { Some(0) } else { self.former.iter().position(of_addr) }
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use limpet_shared::{DevAddr, Eui64};

    use super::*;
    use crate::model::SessionId;

    fn key(addr: u32, id: u64) -> SessionKey {
        SessionKey { dev_addr: DevAddr(addr), dev_eui: Eui64(1), id: SessionId(id) }
    }

    #[test]
    fn a_session_that_is_over_is_kept_as_long_as_receptions_are() {
        let mut state = DeviceState::new(Eui64(1));
        let at = UnixMicros(1_000_000);
        assert_eq!(state.part_with([key(1, 1)], at), []);
        assert_eq!(state.part_with([key(1, 1), key(2, 2)], at + Duration::from_secs(1)), []);
        assert_eq!(state.former.iter().map(|former| former.at).collect::<Vec<_>>(), [at, at + Duration::from_secs(1)]);
        assert_eq!(state.part_with([], at + RECEPTIONS_KEPT), [key(1, 1)]);
        assert_eq!(state.former.len(), 1);
    }

    #[test]
    fn a_device_that_begins_again_without_end_keeps_few_and_few_of_one_address() {
        let (mut state, at) = (DeviceState::new(Eui64(1)), UnixMicros(1_000_000));
        let gone: Vec<_> = (0..100).flat_map(|n| state.part_with([key(n, n.into())], at)).collect();
        assert_eq!((gone.len(), state.former.len()), (100 - MOST, MOST));
        assert_eq!(gone[0], key(0, 0), "the first goes first");
        let mut state = DeviceState::new(Eui64(1));
        state.part_with([key(7, 0)], at);
        let gone: Vec<_> = (1..100).flat_map(|n| state.part_with([key(5, n)], at)).collect();
        assert_eq!((gone.len(), gone[0]), (99 - MOST_OF_ADDR, key(5, 1)));
        assert!(state.former.iter().any(|former| former.key == key(7, 0)), "those of other addresses stay");
    }
}
