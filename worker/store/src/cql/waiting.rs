//! Which devices have events waiting, in the memory of the worker that sends them: what was signed, what looks found, and
//! from where on each device is read. Decides; reads and writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use limpet_shared::{Eui64, UnixMicros};

use crate::{Backlog, IntegrationId, MOST_TURNS};

/// Integration and device.
pub(super) type Waiter = (IntegrationId, Eui64);
/// Session start, slot, part: the order of a device's events.
pub(super) type Position = (i64, i64, i64);

/// Devices of one integration that are remembered at most, so that none takes another's room. What there is no room for is in the
/// list, from which the room is filled again.
pub(super) const MOST: usize = 1_024;
/// An integration with fewer turns than this is filled up from the list, if there was no room for all.
const FEW: usize = MOST / 2;
/// The place of a note that is of no event: what waits for its integration is to be counted anew.
pub(super) const COUNT_ANEW: Position = (-1, -1, -1);

/// An event that somebody has put.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Note {
    pub of: Waiter,
    pub place: Position,
    /// By its writer's clock (Unix, us).
    pub at: i64,
    pub bytes: u64,
}

/// Events, their bytes, and when the oldest was put (Unix, us).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Count {
    pub events: u64,
    pub bytes: u64,
    pub oldest: i64,
}

impl Default for Count {
    fn default() -> Self {
        Self { events: 0, bytes: 0, oldest: i64::MAX }
    }
}

impl Count {
    pub fn add(&mut self, other: Self) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.oldest = self.oldest.min(other.oldest);
    }

    fn put(&mut self, bytes: u64, at: i64) {
        self.add(Self { events: 1, bytes, oldest: at });
    }

    fn deleted(&mut self, bytes: u64) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.events == 0 {
            self.oldest = i64::MAX;
        }
    }
}

#[derive(Debug, Default)]
struct Device {
    /// Where it stands among those that wait; `None` if nothing was left when it was read last.
    turn: Option<u64>,
    /// It had no turn at the last look at idle ones.
    was_idle: bool,
    /// No event comes before this place.
    from: Option<Position>,
    /// Grows with each sign of it.
    signs: u64,
    /// When it was listed last, as far as that is known (Unix, us).
    listed: i64,
    count: Count,
    /// When its events were counted (us, of a steady clock).
    counted: Option<i64>,
}

/// What is known of an integration.
#[derive(Debug, Default)]
struct Known {
    devices: BTreeMap<Eui64, Device>,
    turns: BTreeMap<u64, Eui64>,
    /// There was no room for all that waits.
    more: bool,
    /// Up to which device the list was gone through for those.
    filled: Option<Eui64>,
    census: Census,
}

/// A count of an integration with more devices than are remembered: all that the list has, some at a time.
#[derive(Debug, Default)]
struct Census {
    after: Option<Eui64>,
    so_far: Count,
    last: Option<Count>,
    /// When the last one ended (us, of a steady clock).
    ended: Option<i64>,
}

impl Known {
    fn has_room(&self) -> bool {
        self.devices.len() < MOST || self.turns.len() < self.devices.len()
    }

    /// Where all have turns there is no room for another.
    fn device(&mut self, eui: Eui64) -> Option<&mut Device> {
        if self.devices.len() >= MOST && !self.devices.contains_key(&eui) {
            let idle = self.has_room().then(|| self.devices.iter().find(|(_, device)| device.turn.is_none()));
            let Some(idle) = idle.flatten().map(|(eui, _)| *eui) else {
                self.more = true;
                return None;
            };
            self.devices.remove(&idle);
        }
        Some(self.devices.entry(eui).or_default())
    }

    fn take_turn(&mut self, eui: Eui64) {
        if let Some(turn) = self.devices.get_mut(&eui).and_then(|device| device.turn.take()) {
            self.turns.remove(&turn);
        }
    }

    fn count(&self) -> Count {
        let mut sum = Count::default();
        self.devices.values().filter(|device| device.count.events > 0).for_each(|device| sum.add(device.count));
        match self.census.last {
            Some(all) if self.more && all.events > sum.events => all,
            _ => sum,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Waiting {
    integrations: BTreeMap<IntegrationId, Known>,
    last_turn: u64,
    /// Counts the signs of all.
    signs: u64,
}

impl Waiting {
    fn get(&self, of: Waiter) -> Option<&Device> {
        self.integrations.get(&of.0)?.devices.get(&of.1)
    }

    fn get_mut(&mut self, of: Waiter) -> Option<&mut Device> {
        self.integrations.get_mut(&of.0)?.devices.get_mut(&of.1)
    }

    fn device(&mut self, of: Waiter) -> Option<&mut Device> {
        self.integrations.entry(of.0).or_default().device(of.1)
    }

    /// It has a turn, behind those that have one, unless it had one before.
    fn give_turn(&mut self, of: Waiter) {
        let next = self.last_turn + 1;
        let Some(known) = self.integrations.get_mut(&of.0) else { return };
        if let Some(device) = known.devices.get_mut(&of.1)
            && device.turn.is_none()
        {
            (device.turn, device.was_idle) = (Some(next), false);
            self.last_turn = next;
            known.turns.insert(next, of.1);
        }
    }

    pub fn note(&mut self, note: &Note) {
        if note.place == COUNT_ANEW {
            return self.count_anew(note.of.0);
        }
        self.signs += 1;
        let signs = self.signs;
        let known = self.integrations.entry(note.of.0).or_default();
        if let Some(all) = &mut known.census.last {
            all.put(note.bytes, note.at);
        }
        let Some(device) = known.device(note.of.1) else { return };
        device.signs = signs;
        device.listed = device.listed.max(note.at);
        device.from = device.from.map(|from| from.min(note.place));
        device.count.put(note.bytes, note.at);
        self.give_turn(note.of);
    }

    fn count_anew(&mut self, integration: IntegrationId) {
        if let Some(known) = self.integrations.get_mut(&integration) {
            known.devices.values_mut().for_each(|device| device.counted = None);
            known.census = Census::default();
        }
    }

    /// It is in the list since then. What nobody has signed may be new there, and is found like [`Self::found`]. False if there is
    /// no room for it.
    pub fn listed(&mut self, of: Waiter, at: i64) -> bool {
        let Some(device) = self.device(of) else { return false };
        if device.listed < at {
            device.listed = at;
            self.found(of);
        }
        true
    }

    /// It is in the table, so it is read from its start.
    pub fn found(&mut self, of: Waiter) {
        if let Some(device) = self.device(of) {
            device.from = None;
            self.give_turn(of);
        }
    }

    /// A search has found it. What has a turn is read on from where it was: what was sent meanwhile is not walked each time.
    pub fn searched(&mut self, of: Waiter) {
        if self.get(of).is_none_or(|device| device.turn.is_none()) {
            self.found(of);
        }
    }

    /// The list may have more of this integration. Whether there is room for that now.
    pub fn may_have_more(&mut self, integration: IntegrationId) -> bool {
        let known = self.integrations.entry(integration).or_default();
        let room = known.has_room();
        known.more |= !room;
        room
    }

    /// Integrations with room for more than is remembered, and behind which device the list has it.
    pub fn to_be_filled(&self, limit: usize) -> Vec<(IntegrationId, Option<Eui64>)> {
        let wanting = self.integrations.iter().filter(|(_, known)| known.more && known.turns.len() < FEW);
        wanting.map(|(id, known)| (*id, known.filled)).take(limit).collect()
    }

    /// What the list has behind that device, with when it was written; `ended` if there is no more.
    pub fn fill(&mut self, integration: IntegrationId, after: Option<Eui64>, rows: &[(Eui64, i64)], ended: bool) {
        let (mut last, mut all) = (after, ended);
        for (device, written) in rows {
            if !self.listed((integration, *device), *written) {
                all = false;
                break;
            }
            last = Some(*device);
        }
        let Some(known) = self.integrations.get_mut(&integration) else { return };
        // Only who went through it from its start has seen that there is room for all.
        known.more = !(all && after.is_none());
        known.filled = if all { None } else { last };
        if !known.more {
            known.census = Census::default();
        }
    }

    pub fn turns(&self, each: u32, aside: &[IntegrationId]) -> Vec<Waiter> {
        let aside: BTreeSet<_> = aside.iter().collect();
        let open = self.integrations.iter().filter(|(id, _)| !aside.contains(id));
        let mut lines: Vec<_> = open.map(|(id, known)| (*id, known.turns.iter())).collect();
        let mut all = Vec::new();
        for _ in 0..each {
            let mut place = Vec::new();
            lines.retain_mut(|(id, line)| {
                let next = line.next();
                place.extend(next.map(|(turn, device)| (*turn, (*id, *device))));
                next.is_some()
            });
            place.sort_unstable();
            all.extend(place.into_iter().map(|(_, of)| of));
            if lines.is_empty() || all.len() >= MOST_TURNS {
                break;
            }
        }
        all.truncate(MOST_TURNS);
        all
    }

    /// From where on it is read, and its signs until then.
    pub fn reading(&self, of: Waiter) -> (Option<Position>, u64) {
        self.get(of).map_or((None, 0), |device| (device.from, device.signs))
    }

    /// What such a read began with, and when that was written. If nothing is left: when it was listed last.
    pub fn was_read(&mut self, of: Waiter, signs: u64, first: Option<(Position, i64)>) -> Option<i64> {
        let device = self.get_mut(of)?;
        // A sign since then may be of something before it.
        if device.signs != signs {
            return None;
        }
        if let Some((place, at)) = first {
            (device.from, device.count.oldest) = (Some(place), at);
            return None;
        }
        device.count = Count::default();
        let listed = device.listed;
        self.integrations.get_mut(&of.0)?.take_turn(of.1);
        Some(listed)
    }

    pub fn deleted(&mut self, of: Waiter, bytes: u64) {
        let Some(known) = self.integrations.get_mut(&of.0) else { return };
        if let Some(all) = &mut known.census.last {
            all.deleted(bytes);
        }
        if let Some(device) = known.devices.get_mut(&of.1) {
            device.count.deleted(bytes);
        }
    }

    /// Devices that had no turn at the last such look, and have none now, with their signs; at most `limit`.
    pub fn idle(&mut self, limit: usize) -> Vec<(Waiter, u64)> {
        let mut idle = Vec::new();
        for (id, known) in &mut self.integrations {
            for (eui, device) in known.devices.iter_mut().filter(|(_, device)| device.turn.is_none()) {
                if device.was_idle && idle.len() < limit {
                    idle.push(((*id, *eui), device.signs));
                }
                device.was_idle = true;
            }
        }
        idle
    }

    /// Nothing waits for it, unless it was signed since. Says when it was listed last, if so.
    pub fn forget(&mut self, of: Waiter, signs: u64) -> Option<i64> {
        let known = self.integrations.get_mut(&of.0)?;
        let device = known.devices.get(&of.1)?;
        if device.signs != signs || device.turn.is_some() {
            return None;
        }
        let listed = device.listed;
        known.devices.remove(&of.1);
        if known.devices.is_empty() && !known.more {
            self.integrations.remove(&of.0);
        }
        Some(listed)
    }

    /// Devices whose events were not counted since then, with their signs; at most `limit`.
    pub fn uncounted(&self, since: i64, limit: usize) -> Vec<(Waiter, u64)> {
        let all = self.integrations.iter().flat_map(|(id, known)| known.devices.iter().map(|of| (*id, of)));
        let old = |device: &Device| device.turn.is_some() && device.counted.is_none_or(|at| at < since);
        let old = all.filter(|(_, (_, device))| old(device));
        old.map(|(id, (eui, device))| ((id, *eui), device.signs)).take(limit).collect()
    }

    /// `None`: it could not be counted now, and its turn comes again.
    pub fn counted(&mut self, of: Waiter, signs: u64, now: i64, count: Option<Count>) {
        let Some(device) = self.get_mut(of) else { return };
        device.counted = Some(now);
        let Some(count) = count else { return };
        device.count = count;
        if count.events == 0 && device.signs == signs {
            // It is not read while its integration fails.
            self.was_read(of, signs, None);
        }
    }

    /// Integrations that are counted by the list, were not since then, and from where on; the one that waits longest first.
    pub fn uncounted_lists(&self, since: i64) -> Vec<(IntegrationId, Option<Eui64>)> {
        let due = |census: &Census| census.after.is_some() || census.ended.is_none_or(|at| at < since);
        let mut due: Vec<_> = self.integrations.iter().filter(|(_, known)| known.more && due(&known.census)).collect();
        due.sort_by_key(|(_, known)| known.census.ended);
        due.into_iter().map(|(id, known)| (*id, known.census.after)).collect()
    }

    /// What some devices have; `last` is the last of them, `None` if there are no more.
    pub fn list_counted(&mut self, integration: IntegrationId, count: Count, last: Option<Eui64>, now: i64) {
        let Some(known) = self.integrations.get_mut(&integration) else { return };
        let census = &mut known.census;
        census.so_far.add(count);
        census.after = last;
        if last.is_none() {
            census.last = Some(std::mem::take(&mut census.so_far));
            census.ended = Some(now);
        }
    }

    /// What waits, as far as it was counted and noted.
    pub fn backlog(&self) -> Vec<Backlog> {
        let counts = self.integrations.iter().map(|(id, known)| (*id, known.count()));
        let some = counts.filter(|(_, count)| count.events > 0);
        some.map(|(integration, Count { events, bytes, oldest })| {
            let oldest = UnixMicros(oldest.max(0).cast_unsigned());
            Backlog { integration, events, bytes, oldest }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const A: IntegrationId = IntegrationId(Uuid::from_u128(1));
    const B: IntegrationId = IntegrationId(Uuid::from_u128(2));

    fn note(of: Waiter, slot: i64) -> Note {
        Note { of, place: (1, slot, 0), at: slot, bytes: 10 }
    }

    fn has_turn(waiting: &Waiting, of: Waiter) -> bool {
        waiting.get(of).is_some_and(|device| device.turn.is_some())
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
        waiting.searched(of);
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
        assert!(has_turn(&waiting, of));
        let (_, signs) = waiting.reading(of);
        waiting.was_read(of, signs, None);
        assert!(!has_turn(&waiting, of) && waiting.turns(9, &[]).is_empty());
        waiting.note(&note(of, 7));
        assert_eq!(waiting.turns(9, &[]), [of]);
    }

    #[test]
    fn what_is_signed_during_a_look_is_not_forgotten_by_it() {
        let (mut waiting, of) = (Waiting::default(), (A, Eui64(1)));
        waiting.note(&note(of, 5));
        let (_, signs) = waiting.reading(of);
        assert_eq!(waiting.was_read(of, signs, None), Some(5), "it was listed then");
        assert_eq!(waiting.idle(9), [], "it was idle for no time");
        assert_eq!(waiting.idle(9), [(of, signs)]);
        waiting.note(&note(of, 6));
        assert_eq!(waiting.forget(of, signs), None);
        assert!(has_turn(&waiting, of) && waiting.idle(9).is_empty());
        let (_, signs) = waiting.reading(of);
        assert_eq!(waiting.was_read(of, signs, None), Some(6));
        assert_eq!(waiting.forget(of, signs), Some(6));
        assert!(waiting.integrations.is_empty() && waiting.turns(9, &[]).is_empty());
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
        waiting.counted((A, Eui64(2)), 2, 100, Some(Count { events: 7, bytes: 70, oldest: 9 }));
        assert_eq!(of_a(&waiting).map(|of| (of.events, of.bytes)), Some((8, 80)));
        assert_eq!(waiting.uncounted(50, 9).len(), 2);
        for device in [1, 2] {
            waiting.was_read((A, Eui64(device)), u64::MAX, None);
            assert!(has_turn(&waiting, (A, Eui64(device))), "that read was of another time");
        }
    }

    #[test]
    fn the_list_tells_only_what_nobody_signed() {
        let (mut waiting, of) = (Waiting::default(), (A, Eui64(1)));
        waiting.note(&note(of, 5));
        let (_, signs) = waiting.reading(of);
        waiting.was_read(of, signs, None);
        waiting.listed(of, 5);
        assert!(!has_turn(&waiting, of), "that was signed, and is sent");
        waiting.listed(of, 6);
        assert!(has_turn(&waiting, of));
        waiting.listed((B, Eui64(1)), 1);
        assert!(has_turn(&waiting, (B, Eui64(1))));
    }

    #[test]
    fn many_devices_of_one_integration_take_no_room_of_another() {
        let mut waiting = Waiting::default();
        let most = MOST as u64;
        for device in 0..100 * most {
            waiting.note(&note((A, Eui64(device)), 1));
        }
        assert_eq!(waiting.integrations[&A].devices.len(), MOST);
        waiting.note(&note((B, Eui64(7)), 1));
        assert!(waiting.listed((B, Eui64(8)), 1));
        assert!(has_turn(&waiting, (B, Eui64(7))) && has_turn(&waiting, (B, Eui64(8))));
        assert_eq!(waiting.turns(1, &[]), [(A, Eui64(0)), (B, Eui64(7))]);
    }

    /// Sends all that has a turn, and gives what the list has as room comes, until nothing is left.
    #[test]
    fn what_there_was_no_room_for_follows_from_the_list() {
        let mut waiting = Waiting::default();
        let mut list: BTreeMap<Eui64, i64> = (0..5_000).map(|device| (Eui64(device), 1)).collect();
        list.keys().for_each(|device| waiting.note(&note((A, *device), 1)));
        let mut sent = BTreeSet::new();
        for round in 0.. {
            assert!(round < 100, "it never ends: {} were sent", sent.len());
            let turns = waiting.turns(512, &[]);
            if turns.is_empty() && waiting.to_be_filled(9).is_empty() {
                break;
            }
            for of in turns {
                let (from, signs) = waiting.reading(of);
                let first = sent.insert(of.1).then_some(((1, 1, 0), 1));
                if waiting.was_read(of, signs, first).is_some() && from.is_none() {
                    list.remove(&of.1);
                }
            }
            for (id, after) in waiting.to_be_filled(9) {
                let behind = list.iter().filter(|(device, _)| after.is_none_or(|after| **device > after));
                let rows: Vec<_> = behind.map(|(device, at)| (*device, *at)).take(MOST).collect();
                waiting.fill(id, after, &rows, rows.len() < MOST);
            }
        }
        assert_eq!(sent.len(), 5_000);
        assert!(list.len() <= MOST && !waiting.integrations[&A].more);
    }

    #[test]
    fn what_is_not_remembered_is_counted_by_the_list() {
        let mut waiting = Waiting::default();
        for device in 0..2 * MOST as u64 {
            waiting.note(&note((A, Eui64(device)), 1));
        }
        waiting.note(&note((B, Eui64(1)), 1));
        let events = |waiting: &Waiting| waiting.backlog().iter().map(|of| of.events).collect::<Vec<_>>();
        assert_eq!(events(&waiting), [MOST as u64, 1]);
        assert_eq!(waiting.uncounted_lists(0), [(A, None)]);
        let some = Count { events: 2_000, bytes: 1, oldest: 5 };
        waiting.list_counted(A, some, Some(Eui64(9)), 100);
        assert_eq!(waiting.uncounted_lists(0), [(A, Some(Eui64(9)))], "it goes on");
        waiting.list_counted(A, some, None, 200);
        assert_eq!((events(&waiting), waiting.uncounted_lists(150)), (vec![4_000, 1], vec![]));
        waiting.deleted((A, Eui64(1)), 10);
        waiting.note(&note((A, Eui64(9_999)), 1));
        waiting.note(&note((A, Eui64(9_998)), 1));
        assert_eq!(events(&waiting), [4_001, 1]);
        waiting.note(&Note { of: (A, Eui64(0)), place: COUNT_ANEW, at: 1, bytes: 0 });
        assert_eq!(waiting.uncounted_lists(150), [(A, None)]);
        assert!(!has_turn(&waiting, (A, Eui64(9_999))) && waiting.uncounted(0, 9).len() == 9);
    }
}
