//! Which devices have events waiting, in the memory of the worker that sends them: what was signed, what looks found, and
//! from where on each device is read. Decides; reads and writes nothing.

use std::collections::BTreeMap;

use limpet_shared::{Eui64, UnixMicros};

use crate::{Backlog, IntegrationId, words::in_turn};

/// Integration and device.
pub(super) type Of = (IntegrationId, Eui64);
/// Session start, slot, part: the order of a device's events.
pub(super) type Place = (i64, i64, i64);

/// Devices remembered at most. Looks find the others when there is room.
const MOST: usize = 100_000;

/// An event that somebody has put.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Note {
    pub of: Of,
    pub place: Place,
    /// By its writer's clock (Unix, us).
    pub at: i64,
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct Device {
    /// Where it stands among those that wait; `None` if nothing was left when it was read last.
    turn: Option<u64>,
    /// No event comes before this place.
    from: Option<Place>,
    /// Grows with each sign of it.
    signs: u64,
    /// When it was listed last, as far as that is known (Unix, us).
    listed: i64,
    events: u64,
    bytes: u64,
    oldest: i64,
    /// When its events were counted (Unix, us).
    counted: Option<i64>,
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    devices: BTreeMap<Of, Device>,
    turns: BTreeMap<u64, Of>,
    last_turn: u64,
    /// Counts the signs of all.
    signs: u64,
}

impl Waiting {
    fn device(&mut self, of: Of) -> Option<&mut Device> {
        if self.devices.len() >= MOST && !self.devices.contains_key(&of) {
            return None;
        }
        Some(self.devices.entry(of).or_default())
    }

    /// It has a turn, behind those that have one, unless it had one before.
    fn give_turn(&mut self, of: Of) {
        let next = self.last_turn + 1;
        if let Some(device) = self.devices.get_mut(&of)
            && device.turn.is_none()
        {
            device.turn = Some(next);
            self.last_turn = next;
            self.turns.insert(next, of);
        }
    }

    fn take_turn(&mut self, of: Of) {
        if let Some(turn) = self.devices.get_mut(&of).and_then(|device| device.turn.take()) {
            self.turns.remove(&turn);
        }
    }

    pub fn note(&mut self, note: &Note) {
        self.signs += 1;
        let signs = self.signs;
        let Some(device) = self.device(note.of) else { return };
        device.signs = signs;
        device.listed = device.listed.max(note.at);
        device.from = device.from.map(|from| from.min(note.place));
        if device.events == 0 {
            device.oldest = note.at;
        }
        device.events += 1;
        device.bytes += note.bytes;
        self.give_turn(note.of);
    }

    /// It is in the list since then. What nobody has signed may be new there, and is found like [`Self::found`].
    pub fn listed(&mut self, of: Of, at: i64) {
        if let Some(device) = self.device(of)
            && device.listed < at
        {
            device.listed = at;
            self.found(of);
        }
    }

    /// It is in the table, so it is read from its start.
    pub fn found(&mut self, of: Of) {
        if let Some(device) = self.device(of) {
            device.from = None;
            self.give_turn(of);
        }
    }

    pub fn has_turn(&self, of: Of) -> bool {
        self.devices.get(&of).is_some_and(|device| device.turn.is_some())
    }

    /// Signs so far: what comes later was not seen by a look that begins now.
    pub fn signs(&self) -> u64 {
        self.signs
    }

    /// A look that began when so many signs had come did not find it. Says whether it is forgotten.
    pub fn not_found(&mut self, of: Of, signs: u64) -> bool {
        let forget = self.devices.get(&of).is_none_or(|device| device.signs <= signs);
        if forget {
            self.take_turn(of);
            self.devices.remove(&of);
        }
        forget
    }

    pub fn devices(&self) -> Vec<Of> {
        self.devices.keys().copied().collect()
    }

    pub fn turns(&self, each: u32, aside: &[IntegrationId]) -> Vec<Of> {
        let aside: std::collections::BTreeSet<_> = aside.iter().collect();
        let open = self.turns.values().copied().filter(|(integration, _)| !aside.contains(integration));
        in_turn(open, |(integration, _)| *integration, each)
    }

    /// From where on it is read, and its signs until then.
    pub fn reading(&self, of: Of) -> (Option<Place>, u64) {
        self.devices.get(&of).map_or((None, 0), |device| (device.from, device.signs))
    }

    /// What such a read began with, and when that was written.
    pub fn was_read(&mut self, of: Of, signs: u64, first: Option<(Place, i64)>) {
        let Some(device) = self.devices.get_mut(&of) else { return };
        match first {
            // A sign since then may be of something before it.
            Some((place, at)) if device.signs == signs => (device.from, device.oldest) = (Some(place), at),
            Some(_) => {}
            None if device.signs == signs => {
                (device.events, device.bytes) = (0, 0);
                self.take_turn(of);
            }
            None => {}
        }
    }

    pub fn deleted(&mut self, of: Of, bytes: u64) {
        if let Some(device) = self.devices.get_mut(&of) {
            device.events = device.events.saturating_sub(1);
            device.bytes = device.bytes.saturating_sub(bytes);
        }
    }

    /// Devices whose events were not counted since then, at most `limit`.
    pub fn uncounted(&self, since: i64, limit: usize) -> Vec<Of> {
        let old = |device: &Device| device.turn.is_some() && device.counted.is_none_or(|at| at < since);
        self.devices.iter().filter(|(_, device)| old(device)).map(|(of, _)| *of).take(limit).collect()
    }

    pub fn counted(&mut self, of: Of, now: i64, (events, bytes, oldest): (u64, u64, i64)) {
        if let Some(device) = self.devices.get_mut(&of) {
            (device.events, device.bytes, device.oldest, device.counted) = (events, bytes, oldest, Some(now));
        }
    }

    /// What waits, as far as it was counted and noted.
    pub fn backlog(&self) -> Vec<Backlog> {
        let mut all = BTreeMap::new();
        for ((integration, _), device) in self.devices.iter().filter(|(_, device)| device.events > 0) {
            let (integration, oldest) = (*integration, UnixMicros(device.oldest.max(0).cast_unsigned()));
            let of = all.entry(integration).or_insert(Backlog { integration, events: 0, bytes: 0, oldest });
            of.events += device.events;
            of.bytes += device.bytes;
            of.oldest = of.oldest.min(oldest);
        }
        all.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: IntegrationId = IntegrationId(Uuid::from_u128(1));
    const B: IntegrationId = IntegrationId(Uuid::from_u128(2));

    fn note(of: Of, slot: i64) -> Note {
        Note { of, place: (1, slot, 0), at: slot, bytes: 10 }
    }

    #[test]
    fn a_device_is_read_on_from_where_it_was_and_from_what_comes_before() {
        let (mut waiting, of) = (Waiting::default(), (A, Eui64(1)));
        waiting.note(&note(of, 5));
        let (from, signs) = waiting.reading(of);
        assert_eq!(from, None, "what nobody signed may be there");
        waiting.was_read(of, signs, Some(((1, 5, 0), 5)));
        assert_eq!(waiting.reading(of).0, Some((1, 5, 0)));
        waiting.note(&note(of, 9));
        assert_eq!(waiting.reading(of).0, Some((1, 5, 0)));
        waiting.note(&note(of, 3));
        assert_eq!(waiting.reading(of).0, Some((1, 3, 0)));
        waiting.found(of);
        assert_eq!(waiting.reading(of).0, None);
    }

    #[test]
    fn what_is_signed_while_a_device_is_found_empty_is_not_missed() {
        let (mut waiting, of) = (Waiting::default(), (A, Eui64(1)));
        waiting.note(&note(of, 5));
        let (_, signs) = waiting.reading(of);
        waiting.note(&note(of, 6));
        waiting.was_read(of, signs, None);
        assert!(waiting.has_turn(of));
        let (_, signs) = waiting.reading(of);
        waiting.was_read(of, signs, None);
        assert!(!waiting.has_turn(of) && waiting.turns(9, &[]).is_empty());
        waiting.note(&note(of, 7));
        assert_eq!(waiting.turns(9, &[]), [of]);
    }

    #[test]
    fn what_is_signed_during_a_look_is_not_forgotten_by_it() {
        let (mut waiting, of) = (Waiting::default(), (A, Eui64(1)));
        waiting.note(&note(of, 5));
        let before = waiting.signs();
        waiting.note(&note(of, 6));
        assert!(!waiting.not_found(of, before));
        assert!(waiting.has_turn(of));
        assert!(waiting.not_found(of, waiting.signs()));
        assert!(waiting.devices().is_empty() && waiting.turns(9, &[]).is_empty());
    }

    #[test]
    fn turns_go_round_and_the_backlog_adds_up() {
        let mut waiting = Waiting::default();
        for (integration, device, slot) in [(A, 1, 1), (A, 2, 2), (B, 1, 3), (A, 1, 4)] {
            waiting.note(&note((integration, Eui64(device)), slot));
        }
        assert_eq!(waiting.turns(9, &[]), [(A, Eui64(1)), (B, Eui64(1)), (A, Eui64(2))]);
        assert_eq!(waiting.turns(9, &[A]), [(B, Eui64(1))]);
        let of_a = |waiting: &Waiting| waiting.backlog().into_iter().find(|of| of.integration == A);
        let expected = Backlog { integration: A, events: 3, bytes: 30, oldest: UnixMicros(1) };
        assert_eq!(of_a(&waiting), Some(expected));
        waiting.deleted((A, Eui64(1)), 10);
        waiting.counted((A, Eui64(2)), 100, (7, 70, 9));
        assert_eq!(of_a(&waiting).map(|of| (of.events, of.bytes)), Some((8, 80)));
        assert_eq!(waiting.uncounted(50, 9).len(), 2);
        for device in [1, 2] {
            waiting.was_read((A, Eui64(device)), u64::MAX, None);
            assert!(waiting.has_turn((A, Eui64(device))), "that read was of another time");
        }
    }

    #[test]
    fn the_list_tells_only_what_nobody_signed() {
        let (mut waiting, of) = (Waiting::default(), (A, Eui64(1)));
        waiting.note(&note(of, 5));
        let (_, signs) = waiting.reading(of);
        waiting.was_read(of, signs, None);
        waiting.listed(of, 5);
        assert!(!waiting.has_turn(of), "that was signed, and is sent");
        waiting.listed(of, 6);
        assert!(waiting.has_turn(of));
        waiting.listed((B, Eui64(1)), 1);
        assert!(waiting.has_turn((B, Eui64(1))));
    }

    #[test]
    fn memory_is_bounded() {
        let mut waiting = Waiting::default();
        for device in 0..MOST as u64 + 10 {
            waiting.note(&note((A, Eui64(device)), 1));
        }
        assert_eq!(waiting.devices().len(), MOST);
    }
}
